use serde_json::json;

use super::*;
use crate::spec::Labels;

fn shown(template: &str) -> Result<String, String> {
    let value = json!({
        "Name": "web", "Mode": "global", "Count": 3, "None": [], "Ports": [80, 443], "Replicas": "2/3", "Id": "abc",
        "Spec": {"Labels": {"a.b": "c", "a": "é"}, "Tasks": [{"N": "x"}, {"N": "y", "Slot": 2}]},
        "Labels": "a.b=c,x=1", "Label": {"a.b": "c", "x": "1"},
    });
    Template::of_format(template)?.render(&value, &Manner::of_output(&["UpdateStatus"], &Budget::of_output()))
}

#[test]
fn templates_of_any_words_are_printed_or_refused() {
    let words = [
        "{{",
        "}}",
        "{{if ",
        "{{range ",
        "{{with ",
        "{{else}}",
        "{{else if ",
        "{{end}}",
        "{{- ",
        " -}}",
        "{{/*",
        "*/}}",
        "{{.}}",
        ".Name",
        ".Ports",
        ".Spec.Tasks",
        "$",
        "$x",
        " := ",
        ", ",
        " | ",
        "json ",
        "upper ",
        "index ",
        "(",
        ").N",
        "\"",
        "`",
        "-",
        " ",
        "eq ",
        "and ",
        "len ",
        "printf \"%-5s\"",
        "slice ",
        "split ",
        "99999999999999999999",
        "\\",
        "é",
        "table ",
        "join ",
        "truncate ",
        "pad ",
    ];
    bolero::check!().with_iterations(2000).for_each(|bytes: &[u8]| {
        let _ = shown(&String::from_utf8_lossy(bytes));
        let text: String = bytes.iter().map(|byte| words[usize::from(*byte) % words.len()]).collect();
        let _ = shown(&text);
        let _ = expanded(&text);
    });
    assert!(shown(&"{{if (".repeat(20_000)).is_err());
    assert!(shown(&format!("{{{{{}}}}}", "(".repeat(100_000))).is_err());
    assert!(shown(&format!("{{{{if .}}}}{}", "{{else if .}}".repeat(20_000))).is_err());
}

#[test]
fn templates_that_would_grow_or_go_round_for_ever_end() {
    let around = "{{range $.Ports}}".repeat(30) + &"{{end}}".repeat(30);
    let around = around.as_str();
    assert!(shown(around).unwrap_err().contains("too many steps"));
    assert!(shown("{{index .Ports 2}}").unwrap_err().contains("there is no place 2 in a list of 2"));
    assert!(expanded(&around.replace(".Ports", ".Service.Labels")).unwrap_err().contains("too many"));
    let doubled = r#"{{$x := "12345678"}}"#.to_owned() + &r#"{{$x := printf "%s%s" $x $x}}"#.repeat(40);
    assert!(shown(&doubled).unwrap_err().contains("bytes"));
    assert!(expanded(&doubled).unwrap_err().contains("bytes"));
    let declared = r#"{{$x := ""}}"#.repeat(101);
    assert!(shown(&declared).unwrap_err().contains("more than 100 variables"));
    assert!(expanded(&format!("{{{{and{}}}}}", " .".repeat(100_000))).unwrap_err().contains("more than 1000 words"));
    let copied = format!("{{{{range .Service.Labels}}}}{{{{and{}}}}}{{{{end}}}}", " $".repeat(999)).repeat(30);
    assert!(expanded(&copied).unwrap_err().contains("bytes"));
    let literals = format!("{{{{and{}}}}}", " 1".repeat(999)).repeat(200);
    assert!(expanded(&literals).is_err());
    assert!(shown(r#"{{printf "%99999s" .Name}}"#).unwrap_err().contains("a width of more than"));
}

#[test]
fn templates_print_what_gos_would() {
    let cases = [
        ("plain", "plain"),
        ("{{.Name}}\\t{{ .Count }}", "web\t3"),
        ("{{json .Ports}} {{json .Name}}", "[80,443] \"web\""),
        ("{{.Ports}} {{.Spec.Labels}}", "[80 443] map[a:é a.b:c]"),
        ("{{.Spec.Tasks}}", "[map[N:x] map[N:y Slot:2]]"),
        ("{{json .Spec.Labels}}", r#"{"a":"é","a.b":"c"}"#),
        ("{{.Name | upper}} {{upper .Name}} {{title .Mode}}", "WEB WEB Global"),
        ("{{len .Ports}} {{join .Ports \", \"}} {{index .Ports 1}}", "2 80, 443 443"),
        ("{{index .Spec.Labels \"a.b\"}}{{index .Spec \"Labels\" `a`}}", "cé"),
        ("{{(index .Spec.Tasks 1).Slot}}", "2"),
        ("{{range .Spec.Tasks}}{{.N}}={{.Slot}};{{end}}", "x=<no value>;y=2;"),
        ("{{range $k, $v := .Spec.Labels}}{{$k}}={{$v}} {{$.Name}};{{end}}", "a=é web;a.b=c web;"),
        ("{{range $i, $t := .Spec.Tasks}}{{if $i}}, {{end}}{{$t.N}}{{end}}", "x, y"),
        ("{{range $p:=.Ports}}{{$p}}.{{end}}", "80.443."),
        ("{{range .None}}x{{else}}none{{end}}", "none"),
        ("{{$n := .Name}}{{with .Spec}}{{len .Tasks}} {{$n}}{{end}}", "2 web"),
        ("{{$n := ``}}{{range .Spec.Tasks}}{{$n = .N}}{{end}}{{$n}} {{urlquery `a b/é&`}}", "y a+b%2F%C3%A9%26"),
        ("{{with $x := .None}}x{{else}}none{{end}}{{with .None}}x{{else with .Count}}{{.}}{{end}}", "none3"),
        ("{{if .None}}a{{else}}b{{end}}{{if .Name}}c{{end}}", "bc"),
        ("{{if .None}}a{{else if eq .Name `x` `web`}}b{{else}}c{{end}}", "b"),
        ("{{if eq .Mode \"global\"}}g{{end}}{{if not (eq .Name \"web\")}}n{{end}}", "g"),
        ("{{and .Name .None}} {{or .None .Name}} {{if and .Name (gt .Count 2)}}y{{end}}", "[] web y"),
        ("{{lt .Count 10}} {{le .Count 3}} {{gt .Name `a`}} {{ge \"9\" 10}}", "true true true false"),
        ("{{printf \"%s has %d, %5.1f%% %q\" .Name .Count 12.34 .Mode}}", "web has 3,  12.3% \"global\""),
        ("{{printf \"%-6s|%4s|%03d|%x\\n\" .Name .Name .Count 255}}", "web   | web|003|ff\n"),
        (
            "{{slice .Name 1}} {{slice .Name 0 2}} {{slice .Ports 1 9}} {{index (split .Replicas `/`) 1}}",
            "eb we [443] 3",
        ),
        ("{{pad .Name 1 2}}|{{print .Name .Count 4}}", " web  |web3 4"),
        ("a  {{- .Name -}}  b {{- /* no \" */ -}} c{{-  3}}", "awebbc3"),
        ("{{\"}}\"}}{{truncate .Name 2}}", "}}we"),
        ("{{println .Name}}", "web\n"),
        ("{{printf `%x` .Name}} {{split `é1` ``}}{{pad `` 1 2}}|", "776562 [é 1]|"),
        ("{{.Label \"a.b\"}}{{.Label \"none\"}} {{.Labels}}", "c a.b=c,x=1"),
        ("{{.ID}} {{.Id}}", "abc abc"),
        ("{{.Spec.Nothing.Below}}", "<no value>"),
        ("{{index .Spec.Labels `none`}}{{index .Spec.Nothing `a`}}|", "|"),
        ("{{.UpdateStatus.State}} {{if .UpdateStatus}}a{{else}}b{{end}}", "<no value> b"),
    ];
    for (template, expected) in cases {
        assert_eq!(shown(template).as_deref(), Ok(expected), "{template}");
    }
}

#[test]
fn what_is_wrong_is_named() {
    let cases = [
        ("{{.Name", "{{ is not closed by }}"),
        ("{{.Nam}}", "there is no field .Nam; did you mean .Name?"),
        ("{{$.Nam}}", "there is no field .Nam; did you mean .Name?"),
        ("{{.UpdateStatusX}}", "there is no field .UpdateStatusX; did you mean .UpdateStatus?"),
        ("{{.Banana}}", "there is no field .Banana; there are .Count"),
        ("{{jsn .}}", "there is no function jsn: did you mean json?"),
        ("{{Name}}", "a field is written with a dot: .Name"),
        ("{{$x}}", "there is no variable $x here"),
        ("{{if .Name}}{{$x := 1}}{{end}}{{$x}}", "there is no variable $x here"),
        ("{{$a, $b := 1}}", "2 variables are set at once"),
        ("{{.Name := 1}}", "only variables stand before :="),
        ("{{$a = 1}}", "there is no variable $a here: declare it"),
        ("{{$a := 1}}{{if $a = 2}}{{end}}", "{{if}} declares a variable with :="),
        ("{{define \"a\"}}", "define of Go's templates is not supported"),
        ("{{env `A`}}", "for the data of secrets and configs alone"),
        ("{{\"\\q\"}}", "has an escape that is none of"),
        ("a\n{{if .Name}}\n{{.Nam}}{{end}}", "line 3: there is no field .Nam"),
        ("a\n{{if .Name}}\n{{.Name}}", "line 2: {{if}} is not closed"),
        ("{{/* a\nb */}}\n{{Name}}", "line 3: there is no function Name"),
        ("{{if .Name}}", "{{if}} is not closed by {{end}}"),
        ("{{range .Ports}}{{else}}", "{{range}} is not closed by {{end}}"),
        (
            "{{with .Ports}}{{else if .Name}}{{end}}",
            "{{else}} of {{with}} is followed by what is none of its conditions",
        ),
        ("{{end}}", "{{end}} without"),
        ("{{/* a", "a remark is not closed"),
        ("{{}}", "there is nothing to print"),
        ("{{.Name | }}", "there is nothing to print"),
        ("{{.Name .Mode}}", "several values stand side by side"),
        ("{{.Name, .Mode}}", "a comma stands between values"),
        ("{{join .Name}}", "join does not take 1 values"),
        ("{{printf \"%d\"}}", "less values than"),
        ("{{printf \"%z\" 1}}", "a verb is none of"),
        ("{{printf \"a\" 1}}", "more values than"),
        ("{{(.Name}}", "( is not closed by )"),
        ("{{.Name)}}", "a ) too many"),
    ];
    for (template, expected) in cases {
        let error = shown(template).expect_err(template);
        assert!(error.contains(expected), "{template}: {error}");
    }
    assert!(Template::parse(&"{{if .}}".repeat(1000)).is_err(), "and nothing overflows");
}

fn with_words<T>(look: impl FnOnce(&Words) -> T) -> T {
    let labels = [("team", "a"), ("com.example.tier", "front")].map(|(k, v)| (k.into(), v.into())).into();
    let context = Context {
        service_id: "s1",
        service_name: "web",
        service_labels: &labels,
        node_id: "n1",
        node_hostname: "host-1",
        node_os: "linux",
        node_architecture: "x86_64",
        task_id: "t1",
        task_name: "web.2.t1",
        task_slot: "2",
    };
    look(&context.words())
}

fn expanded(text: &str) -> Result<String, String> {
    with_words(|words| expand(text, words, None, &Budget::of_task()))
}

#[test]
fn the_words_of_tasks_are_filled_in() {
    for (text, wanted) in [
        ("plain \\t", "plain \\t"),
        ("{{.Service.Name}}-{{ .Task.Slot }}\\n", "web-2\\n"),
        ("{{.Node.Hostname}}/{{.Node.Platform.OS}}/{{.Node.Platform.Architecture}}", "host-1/linux/x86_64"),
        ("{{.Service.ID}}{{.Node.ID}}{{.Task.ID}} {{.Task.Name}}", "s1n1t1 web.2.t1"),
        ("{{.Service.Labels.team}}", "a"),
        ("{{index .Service.Labels \"com.example.tier\"}}", "front"),
        ("{{index .Service.Labels \"none\"}}{{printf `%s` (index .Service.Labels `none`)}}", ""),
        ("{{if index .Service.Labels `none`}}{{.Service.Labels.none}}{{else}}no{{end}}", "no"),
        ("{{.Service.Labels}}", "map[com.example.tier:front team:a]"),
        ("{{range $k, $v := .Service.Labels}}{{$k}}={{$v}};{{end}}", "com.example.tier=front;team=a;"),
        (
            "{{if and (index .Service.Labels `x`) (eq .Service.Labels.x `1`)}}a{{else}}{{or .Task.Slot .Service.Labels.x}}{{end}}",
            "2",
        ),
        ("{{with .Node}}{{.Hostname}}{{end}} {{$n := .Node}}{{$n.ID}}", "host-1 n1"),
        ("{{join \"-\" .Service.Name .Task.Slot \"x\"}}", "web-2-x"),
        ("{{.Task.Slot | join `,` (join \"\" `a` `b`)}}", "ab,2"),
        ("{{if eq .Task.Slot \"1\"}}first{{else if gt .Task.Slot 1}}other{{end}}", "other"),
        ("{{printf \"web-%03d\" .Task.Slot}}", "web-002"),
        ("a {{- .Task.Slot -}} b", "a2b"),
        ("{{/* a word */}}x", "x"),
        ("{{\"}} \\\" \\n\t\"}}", "}} \" \n\t"),
        ("}} alone", "}} alone"),
    ] {
        assert_eq!(expanded(text).as_deref(), Ok(wanted), "{text}");
    }
}

#[test]
fn what_no_task_has_is_named_in_any_branch() {
    for (text, part) in [
        ("{{.Node.Name}}", "there is no field .Node.Name; there are .Hostname, .ID, .Platform"),
        ("{{.Task.Slots}}", "there is no field .Task.Slots; did you mean .Task.Slot?"),
        ("{{.Task.Slot.x}}", "there is no field .Task.Slot.x"),
        ("{{if false}}{{$.Task.Slots}}{{end}}", "there is no field .Task.Slots"),
        ("{{.Service.Labels.none}}", "there is no field .Service.Labels.none; there are .com.example.tier, .team"),
        ("{{with .Node}}{{.Slot}}{{end}}", "there is no field .Slot"),
        ("{{range .Task.Slot}}{{end}}", "range goes through lists and maps"),
        ("{{.Task.Slot", "not closed"),
        ("{{}}", "nothing to print"),
        ("{{exec \"rm\"}}", "no function exec"),
        ("{{if false}}{{env \"A\"}}{{end}}", "for the data of secrets and configs alone"),
        ("{{.Task.Slot .Task.ID}}", "several values stand side by side"),
        ("{{join .Service.Labels}}", "join does not take 1 values"),
    ] {
        let error = expanded(text).expect_err(text);
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn data_may_ask_for_the_environment_and_for_files() {
    let lookup = |kind: &str, name: &str| match (kind, name) {
        ("env", "LEVEL") => Ok("info".to_owned()),
        ("secret", "key") => Ok("hid den".to_owned()),
        _ => Err(format!("{kind} {name} not found")),
    };
    let data = |text: &str| with_words(|words| expand(text, words, Some(&lookup), &Budget::of_task()));
    let text = "level={{env \"LEVEL\"}}\n{{if eq (env `LEVEL`) `info`}}key={{secret `key` | urlquery}}{{end}}";
    assert_eq!(data(text).as_deref(), Ok("level=info\nkey=hid+den"));
    assert_eq!(data("a\n{{config \"none\"}}"), Err("line 2: config none not found".into()));
    assert_eq!(data("{{secret}}"), Err("secret takes one name".into()));
    let made = data("{{secret (secret `key`)}}").unwrap_err();
    assert!(made.contains("of the name that the template made") && !made.contains("hid den"), "{made}");
    for text in ["{{index (split `a,b` `,`) (secret `key`)}}", "{{lt (secret `key`)}}", "{{printf (secret `key`) 1 2}}"]
    {
        let error = data(text).expect_err(text);
        assert!(!error.contains("hid den"), "{error}");
    }
}

#[test]
fn data_is_checked_before_any_service_has_it() {
    for text in ["plain", "{{env `A`}} {{.Service.Labels.any}} {{.Task.Slot}}", "{{if .Node}}{{secret `a`}}{{end}}"] {
        assert_eq!(check_data(text.as_bytes(), false), Ok(()), "{text}");
    }
    assert_eq!(
        check_data(b"a\n{{if .Task.Slots}}{{end}}", false),
        Err("line 2: there is no field .Task.Slots; did you mean .Task.Slot?".into())
    );
    assert!(check_data(b"{{hidden", false).unwrap_err().contains("not closed"));
    assert!(check_data(&[0xff], true).unwrap_err().contains("UTF-8"));
    let told = check_data(b"a\n{{hunter2}}", true).unwrap_err();
    assert!(told.contains("line 2 is no template") && !told.contains("hunter2"), "{told}");
    let long = check_data(format!("{{{{{}}}}}", "x".repeat(100_000)).as_bytes(), false).unwrap_err();
    assert!(long.len() < 500, "{}", long.len());
}

#[test]
fn fields_are_checked_without_being_filled_in() {
    let labels = Words::of_any_task(&Labels::from([("team".to_owned(), "a".to_owned())]));
    let around = "{{range .Service.Labels}}".repeat(30) + &"{{end}}".repeat(30);
    for text in ["{{.Service.Labels.team}}", "{{if index .Service.Labels `x`}}{{.Service.Labels.x}}{{end}}", &around] {
        assert_eq!(check_field(text, &labels), Ok(()), "{text}");
    }
    assert!(check_field("{{.Service.Labels.x}}", &labels).unwrap_err().contains("no field .Service.Labels.x"));
    assert!(check_field(&format!("{{{{.Node.ID}}}}{}", "x".repeat(64 << 10)), &labels).is_err());
}

#[test]
fn the_templates_of_a_container_have_one_budget() {
    let each = format!("A={}", "{{range .Service.Labels}}{{printf `%200s` .}}{{end}}".repeat(100));
    let mut container = crate::spec::ContainerSpec { env: vec![each; 1000], ..Default::default() };
    let failed = with_words(|words| container.expand(words));
    assert!(!failed.is_empty() && failed.len() < 1000 && failed[0].1.contains("too many"), "{}", failed.len());
}
