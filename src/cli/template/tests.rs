use serde_json::json;

use super::*;

fn shown(template: &str) -> Result<String, String> {
    let value = json!({
        "Name": "web", "Mode": "global", "Count": 3, "None": [], "Ports": [80, 443], "Replicas": "2/3", "Id": "abc",
        "Spec": {"Labels": {"a.b": "c", "a": "é"}, "Tasks": [{"N": "x"}, {"N": "y", "Slot": 2}]},
        "Labels": "a.b=c,x=1", "Label": {"a.b": "c", "x": "1"},
    });
    Template::parse(template)?.render(&value, &["UpdateStatus"])
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
    });
    assert!(shown(&"{{if (".repeat(20_000)).is_err());
    assert!(shown(&format!("{{{{{}}}}}", "(".repeat(100_000))).is_err());
    assert!(shown(&format!("{{{{if .}}}}{}", "{{else if .}}".repeat(20_000))).is_err());
}

#[test]
fn templates_that_would_grow_or_go_round_for_ever_end() {
    let around = "{{range $.Ports}}".repeat(30) + &"{{end}}".repeat(30);
    assert!(shown(&around).unwrap_err().contains("parts to fill in"));
    let doubled = r#"{{$x := "12345678"}}"#.to_owned() + &r#"{{$x := printf "%s%s" $x $x}}"#.repeat(40);
    assert!(shown(&doubled).unwrap_err().contains("bytes"));
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
        ("{{.Label \"a.b\"}}{{.Label \"none\"}} {{.Labels}}", "c a.b=c,x=1"),
        ("{{.ID}} {{.Id}}", "abc abc"),
        ("{{.Spec.Nothing.Below}}", "<no value>"),
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
        ("{{$a, $b := 1}}", "sets 2 variables at once"),
        ("{{.Name := 1}}", "only variables stand before :="),
        ("{{if .Name}}", "{{if}} is not closed by {{end}}"),
        ("{{range .Ports}}{{else}}", "{{range}} is not closed by {{end}}"),
        ("{{with .Ports}}{{else if .Name}}{{end}}", "{{else if .Name}} does not follow {{with}}"),
        ("{{end}}", "{{end}} without"),
        ("{{/* a", "a remark is not closed"),
        ("{{}}", "there is nothing to print"),
        ("{{.Name | }}", "there is nothing to print"),
        ("{{.Name .Mode}}", "several values stand side by side"),
        ("{{.Name, .Mode}}", "a comma stands between values"),
        ("{{join .Name}}", "join does not take 1 values"),
        ("{{printf \"%d\"}}", "there is no value for %d"),
        ("{{printf \"%z\" 1}}", "%z is none of"),
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
