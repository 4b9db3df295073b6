//! `flok service explain`.

use clap::Args;

use super::fetch;
use crate::api::client::Client;
use crate::api::model::explain::{NodeExplanation, ServiceExplanation};
use crate::cli::output::{FormatArg, Table, print};

/// Say why each task of a service is where it is, or why it does not run
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  flok service explain web
  flok service explain --format json web | jq '.tasks[] | select(.state != \"running\")'

The second table shows each node as one more task would find it now: COST is counted in tasks, the lowest wins. It adds up
the service's tasks there, what the node's load counts for (BUSY), and half a task where the image is missing.")]
pub struct Explain {
    #[command(flatten)]
    format: FormatArg,
    /// Name or id
    #[arg(value_name = "SERVICE")]
    service: String,
}

impl Explain {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        // By its id, which is of URL characters.
        let id = fetch(client, &self.service).await?.id.unwrap_or_default();
        let explanation: ServiceExplanation = client.get(&format!("/services/{id}/explain")).await?;
        print(&self.format.format.show(&explanation, || render(&explanation))?)
    }
}

fn render(of: &ServiceExplanation) -> String {
    let mut out = format!("Service {} ({}): {} of {} running\n", of.service, of.mode, of.running, of.wanted);
    for note in &of.notes {
        out.push_str(&format!("Note: {note}\n"));
    }
    let mut tasks = Table::new(&[("Task", "TASK"), ("State", "STATE"), ("Node", "NODE"), ("Why", "WHY")]);
    for task in &of.tasks {
        let node = task.node.clone().unwrap_or_else(|| "-".into());
        tasks.row([task.name.clone(), task.state.clone(), node, task.why.clone()]);
    }
    let mut nodes = Table::new(&[
        ("Node", "NODE"),
        ("Cost", "COST"),
        ("Tasks", "TASKS"),
        ("Busy", "BUSY"),
        ("Image", "IMAGE"),
        ("Verdict", "FOR ONE MORE TASK"),
    ]);
    for node in &of.nodes {
        nodes.row([
            node.name.clone(),
            format!("{:.2}", node.cost),
            node.tasks.to_string(),
            format!("{:.2}", node.busy),
            if node.has_image { "present" } else { "missing" }.to_owned(),
            verdict(node),
        ]);
    }
    format!("{out}\n{}\n{}", tasks.text(), nodes.text())
}

fn verdict(node: &NodeExplanation) -> String {
    match &node.refusal {
        Some(refusal) => format!("refused: {refusal}"),
        None if node.avoided => "fits, but comes last: its tasks failed there of late".to_owned(),
        None => "fits".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::model::explain::TaskExplanation;

    #[test]
    fn tasks_and_nodes_say_why() {
        let task = |name: &str, state: &str, node: Option<&str>, why: &str| TaskExplanation {
            name: name.into(),
            id: String::new(),
            node: node.map(Into::into),
            state: state.into(),
            why: why.into(),
        };
        let node = |name: &str, refusal: Option<&str>, tasks| NodeExplanation {
            name: name.into(),
            refusal: refusal.map(Into::into),
            cost: f64::from(tasks) + 0.25,
            busy: 0.25,
            avoided: false,
            tasks,
            has_image: tasks > 0,
        };
        let explanation = ServiceExplanation {
            service: "web".into(),
            mode: "replicated".into(),
            running: 1,
            wanted: 2,
            notes: vec!["update: update in progress".into()],
            tasks: vec![
                task("web.1", "running", Some("n1"), "the node passed all filters"),
                task("web.2", "pending", None, "no suitable node (1 node: drained)"),
            ],
            nodes: vec![node("n1", None, 1), node("n2", Some("drained"), 0)],
        };
        let expected = "\
Service web (replicated): 1 of 2 running
Note: update: update in progress

TASK    STATE     NODE   WHY
web.1   running   n1     the node passed all filters
web.2   pending   -      no suitable node (1 node: drained)

NODE   COST   TASKS   BUSY   IMAGE     FOR ONE MORE TASK
n1     1.25   1       0.25   present   fits
n2     0.25   0       0.25   missing   refused: drained
";
        assert_eq!(render(&explanation), expected);
    }
}
