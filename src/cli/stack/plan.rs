//! `flok stack plan`: what a deployment would do, with nothing done.

use std::fmt::Write;
use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::deploy::{Request, stack_name};
use crate::api::client::Client;
use crate::api::model::plan::{Action, FieldChange, ServicePlan, StackPlan, TaskPlan};
use crate::cli::output::{FormatArg, print};

/// With `--detailed-exitcode`: there are changes, and every task finds a place.
const WOULD_CHANGE: u8 = 3;
/// And some task does not.
const WOULD_WAIT: u8 = 4;

/// Show what deploying a stack would change, and where its new tasks would run; nothing is done
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  flok stack plan -c stack.yml shop
  flok stack plan -c stack.yml --prune shop                  with what would be removed
  flok stack plan -c stack.yml --detailed-exitcode shop      for scripts, see below
  flok stack plan -c stack.yml --format json shop | jq .services

With --detailed-exitcode the command ends with 0 where nothing would change, with 3 where something would, and with 4
where it would but some task finds no place. Errors end with 1, wrong arguments with 2.")]
pub struct Plan {
    /// Say by the exit code whether something would change
    #[arg(long)]
    detailed_exitcode: bool,
    #[command(flatten)]
    format: FormatArg,
    #[command(flatten)]
    request: Request,
    /// Name of the stack
    #[arg(value_name = "NAME", value_parser = stack_name)]
    name: String,
}

impl Plan {
    pub async fn run(self, client: &Client) -> anyhow::Result<ExitCode> {
        let plan = ask(client, &self.request, &self.name).await?;
        print(&self.format.format.show(&plan, || render(&plan))?)?;
        let code = match (self.detailed_exitcode, plan.has_changes(), plan.unplaced()) {
            (false, ..) | (true, false, _) => return Ok(ExitCode::SUCCESS),
            (true, true, 0) => WOULD_CHANGE,
            (true, true, _) => WOULD_WAIT,
        };
        Ok(ExitCode::from(code))
    }
}

pub(super) async fn ask(client: &Client, request: &Request, name: &str) -> anyhow::Result<StackPlan> {
    let (request, _) = request.make(client, name).await?;
    Ok(client.post(&format!("/stacks/{name}/plan"), &request).await?)
}

pub(super) fn render(plan: &StackPlan) -> String {
    let mut out = String::new();
    for object in &plan.objects {
        line(&mut out, 0, format_args!("{} {} {}", sign(object.action), object.kind, object.name));
    }
    for service in plan.services.iter().filter(|service| service.action != Action::Unchanged) {
        service_lines(&mut out, service);
    }
    if !out.is_empty() {
        out.push('\n');
    }
    out.push_str(&summary(plan));
    out
}

fn service_lines(out: &mut String, service: &ServicePlan) {
    line(out, 0, format_args!("{} service {}", sign(service.action), service.name));
    for other in &service.restarts_with {
        line(out, 1, format_args!("replaced with {other}, on which it depends with restart"));
    }
    for field in &service.fields {
        line(out, 1, format_args!("{}", change(field)));
    }
    for task in &service.stops {
        let on = task.node.as_deref().map_or_else(String::new, |node| format!(" on {node}"));
        line(out, 1, format_args!("stops {}{on}", task.name));
    }
    for other in &service.waits_for {
        line(out, 1, format_args!("first waits for {other}"));
    }
    for task in &service.starts {
        line(out, 1, format_args!("{}", start(task)));
    }
}

fn start(task: &TaskPlan) -> String {
    match &task.node {
        Some(node) => format!("starts {} on {node}", task.name),
        None if task.is_unplaced() => format!("WAITS {}: {}", task.name, task.reason),
        None => format!("starts {} later", task.name),
    }
}

fn change(FieldChange { path, from, to }: &FieldChange) -> String {
    match (from, to) {
        (Some(from), Some(to)) => format!("~ {path}: {} -> {}", short(from), short(to)),
        (Some(from), None) => format!("- {path}: {}", short(from)),
        (None, Some(to)) => format!("+ {path}: {}", short(to)),
        (None, None) => format!("~ {path}"),
    }
}

/// Text without quotes where it is plain.
fn short(value: &Value) -> String {
    match value {
        Value::String(text) if !text.is_empty() && !text.contains(['\n', '"', ' ']) => text.clone(),
        other => other.to_string(),
    }
}

fn sign(action: Action) -> char {
    match action {
        Action::Create => '+',
        Action::Update => '~',
        Action::Remove => '-',
        Action::Unchanged => '=',
    }
}

fn summary(plan: &StackPlan) -> String {
    if !plan.has_changes() {
        return format!("Stack {}: nothing to change.\n", plan.stack);
    }
    let actions = plan.objects.iter().map(|object| object.action).chain(plan.services.iter().map(|s| s.action));
    let actions: Vec<Action> = actions.collect();
    let count = |wanted| actions.iter().filter(|action| **action == wanted).count();
    let starts = plan.starting();
    let stops: usize = plan.services.iter().map(|service| service.stops.len()).sum();
    let mut out = format!(
        "Stack {}: {} to create, {} to update, {} to remove, {} unchanged; tasks: {starts} would start, {stops} stop.\n",
        plan.stack,
        count(Action::Create),
        count(Action::Update),
        count(Action::Remove),
        count(Action::Unchanged),
    );
    match plan.unplaced() {
        0 => {}
        1 => out.push_str("1 task would find no place.\n"),
        many => line(&mut out, 0, format_args!("{many} tasks would find no place.")),
    }
    if !plan.complete {
        out.push_str("The update has more steps than are shown; the rest goes on in the same way.\n");
    }
    out
}

fn line(out: &mut String, depth: usize, text: std::fmt::Arguments<'_>) {
    writeln!(out, "{:width$}{text}", "", width = depth * 4).expect("a String takes all");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::model::plan::ObjectPlan;

    fn service(action: Action, name: &str) -> ServicePlan {
        ServicePlan {
            action,
            name: name.into(),
            fields: Vec::new(),
            starts: Vec::new(),
            stops: Vec::new(),
            waits_for: Vec::new(),
            restarts_with: Vec::new(),
        }
    }

    fn task(name: &str, node: Option<&str>, reason: &str) -> TaskPlan {
        TaskPlan { name: name.into(), node: node.map(Into::into), reason: reason.into() }
    }

    #[test]
    fn a_plan_reads_as_a_list_of_changes() {
        let mut web = service(Action::Update, "s_web");
        let field = |path: &str, from: Value, to: Value| FieldChange {
            path: path.into(),
            from: Some(from).filter(|value| !value.is_null()),
            to: Some(to).filter(|value| !value.is_null()),
        };
        web.fields = vec![
            field("image", "nginx:1".into(), "nginx:2".into()),
            field("env[A]", Value::Null, "two words".into()),
            field("init", true.into(), Value::Null),
        ];
        web.stops = vec![task("s_web.1", Some("n1"), ""), task("s_web.3", None, "no suitable node")];
        web.starts = vec![
            task("s_web.1", Some("n2"), ""),
            task("s_web.2", None, "no suitable node (1 node: drained)"),
            task("s_web.3", None, ""),
        ];
        web.waits_for = vec!["s_db to be healthy".into()];
        let mut api = service(Action::Update, "s_api");
        api.restarts_with = vec!["s_web".into()];
        let plan = StackPlan {
            stack: "s".into(),
            objects: vec![ObjectPlan { action: Action::Create, kind: "network".into(), name: "s_default".into() }],
            services: vec![web, api, service(Action::Unchanged, "s_db"), service(Action::Remove, "s_old")],
            complete: true,
        };
        let expected = "\
+ network s_default
~ service s_web
    ~ image: nginx:1 -> nginx:2
    + env[A]: \"two words\"
    - init: true
    stops s_web.1 on n1
    stops s_web.3
    first waits for s_db to be healthy
    starts s_web.1 on n2
    WAITS s_web.2: no suitable node (1 node: drained)
    starts s_web.3 later
~ service s_api
    replaced with s_web, on which it depends with restart
- service s_old

Stack s: 1 to create, 2 to update, 1 to remove, 1 unchanged; tasks: 2 would start, 2 stop.
1 task would find no place.
";
        assert_eq!(render(&plan), expected);
    }

    #[test]
    fn a_plan_without_changes_says_so() {
        let plan = StackPlan {
            stack: "s".into(),
            services: vec![service(Action::Unchanged, "s_db")],
            complete: true,
            ..StackPlan::default()
        };
        assert_eq!(render(&plan), "Stack s: nothing to change.\n");
    }
}
