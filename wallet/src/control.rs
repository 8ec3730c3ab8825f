//! Commands about the node (peers, rpc, stop) and about this program (completions, man).

use std::io::Read;
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;
use serde_json::{Map, Value, json};

use crate::cli::Cli;
use crate::error::{Doing, Result, usage};
use crate::format::printable;
use crate::session::{Session, print};

/// `groat peers`.
pub fn peers(session: &Session) -> Result<()> {
    let peers: Vec<Value> = session.node()?.call("getpeerinfo", json!([]))?;
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let (mut list, mut rows) = (Vec::new(), Vec::new());
    for peer in &peers {
        let inbound = peer["inbound"] == json!(true);
        list.push(json!({
            "id": peer["id"], "address": peer["addr"], "inbound": inbound, "agent": peer["subver"],
            "height": peer["synced_blocks"], "transport": peer["transport_protocol_type"],
        }));
        let direction = if inbound { "in" } else { "out" };
        rows.push(vec![
            text(&peer["id"]),
            text(&peer["addr"]),
            direction.into(),
            text(&peer["transport_protocol_type"]),
            text(&peer["subver"]),
        ]);
    }
    let titles = ["id", "address", "", "transport", "agent"];
    session.show_rows(&json!({ "peers": list }), &titles, &rows, "The node has no peers now.");
    Ok(())
}

/// `groat rpc`.
pub fn rpc(session: &Session, method: &str, arguments: &[String]) -> Result<()> {
    let params = parse_arguments(arguments)?;
    let answer: Value = session.node()?.call(method, params)?;
    match &answer {
        Value::Null => {}
        Value::String(text) if session.tty() => print(&printable(text)),
        Value::String(text) if !session.json() => print(text),
        answer if session.json() => print(&answer.to_string()),
        answer => print(&format!("{answer:#}")),
    }
    Ok(())
}

/// Arguments in order, named ones, or both (Core takes the ones in order as `args`).
fn parse_arguments(arguments: &[String]) -> Result<Value> {
    let (mut ordered, mut named) = (Vec::new(), Map::new());
    for argument in arguments {
        if argument == "-" {
            let mut text = String::new();
            std::io::stdin().lock().read_to_string(&mut text).doing("read standard input")?;
            ordered.push(parse_value(text.trim()));
        } else if let Some((name, value)) = split_name(argument) {
            if named.insert(name.to_owned(), parse_value(value)).is_some() {
                return Err(usage(format!("{name} is given twice")));
            }
        } else {
            ordered.push(parse_value(argument));
        }
    }
    if named.is_empty() {
        return Ok(Value::Array(ordered));
    }
    if !ordered.is_empty() {
        named.insert("args".into(), Value::Array(ordered));
    }
    Ok(Value::Object(named))
}

/// `name=value`, where the name could be an argument's.
fn split_name(argument: &str) -> Option<(&str, &str)> {
    let (name, value) = argument.split_once('=')?;
    let plain = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_';
    (!name.is_empty() && name.chars().all(plain)).then_some((name, value))
}

/// JSON if it is that; else text, without quotes that a shell would take away.
fn parse_value(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| text.into())
}

/// `groat stop`.
pub fn stop(session: &Session) -> Result<()> {
    let answer: Value = session.node()?.call("stop", json!([]))?;
    session.show(&json!({ "answer": answer }), || answer.as_str().unwrap_or("The node stops.").to_owned());
    Ok(())
}

/// `groat completions`.
pub fn completions(shell: Shell) -> Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "groat", &mut text);
    print(String::from_utf8_lossy(&text).trim_end());
    Ok(())
}

/// `groat man`.
pub fn man(folder: Option<&Path>) -> Result<()> {
    if let Some(folder) = folder {
        let written = std::fs::create_dir_all(folder).and_then(|()| clap_mangen::generate_to(Cli::command(), folder));
        return written.doing("write the manual pages");
    }
    let mut text = Vec::new();
    clap_mangen::Man::new(Cli::command()).render(&mut text).doing("write the manual page")?;
    print(String::from_utf8_lossy(&text).trim_end());
    Ok(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests may panic")]
mod tests {
    use super::*;

    #[test]
    fn arguments_need_no_quotes_of_json() {
        let parse = |list: &[&str]| parse_arguments(&list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
        assert_eq!(parse(&["1", "true", "abc", "[2]"]).unwrap(), json!([1, true, "abc", [2]]));
        assert_eq!(parse(&["blockhash=00ff", "verbosity=2"]).unwrap(), json!({"blockhash": "00ff", "verbosity": 2}));
        assert_eq!(parse(&["00ff", "verbosity=2"]).unwrap(), json!({"args": ["00ff"], "verbosity": 2}));
        assert!(parse(&["a=1", "a=2"]).is_err());
        // Base64 ends like this.
        assert_eq!(parse(&["cHNidP8BAA=="]).unwrap(), json!(["cHNidP8BAA=="]));
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
