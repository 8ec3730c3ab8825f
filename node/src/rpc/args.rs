//! The arguments of a call: by position, by name or mixed; their JSON types; hashes, heights and hex. Texts of errors
//! are Core's (`src/rpc/server.cpp`, `src/rpc/util.cpp`). Knows no method.

use std::str::FromStr;

use serde_json::{Map, Value};

use super::error::*;

/// The JSON type of an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text.
    Text,
    /// Hexadecimal text.
    Hex,
    /// A number.
    Number,
    /// True or false.
    Bool,
    /// An array; with its elements as the usage line shows them, which are left out if there is nothing to show.
    Array(&'static str),
    /// An object; as the usage line shows it.
    Object(&'static str),
    /// An object whose members, these, may also come as named arguments of their own; first as the usage line shows it.
    /// Core: `OBJ_NAMED_PARAMS`.
    Options(&'static str, &'static [&'static str]),
    /// Whatever comes.
    Any,
    /// Whatever comes; as the usage line shows it.
    Loose(&'static str),
}

/// One argument of a method.
#[derive(Clone, Copy, Debug)]
pub struct Arg {
    /// Its names, the first one first, separated by `|`.
    pub names: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Whether a call needs it.
    pub required: bool,
    /// Left out of the help.
    pub hidden: bool,
    /// What it is, in half a sentence.
    pub about: &'static str,
}

impl Arg {
    /// An argument that every call has.
    pub const fn required(names: &'static str, kind: Kind, about: &'static str) -> Arg {
        Arg { names, kind, required: true, hidden: false, about }
    }

    /// An argument that may be left out.
    pub const fn optional(names: &'static str, kind: Kind, about: &'static str) -> Arg {
        Arg { names, kind, required: false, hidden: false, about }
    }

    /// An argument that may be left out and is not told of.
    pub const fn hidden(names: &'static str, kind: Kind) -> Arg {
        Arg { names, kind, required: false, hidden: true, about: "" }
    }

    /// Its first name.
    pub fn name(&self) -> &'static str {
        self.names.split('|').next().unwrap_or(self.names)
    }

    fn expected(&self) -> Option<&'static str> {
        Some(match self.kind {
            Kind::Text | Kind::Hex => "string",
            Kind::Number => "number",
            Kind::Bool => "bool",
            Kind::Array(_) => "array",
            Kind::Object(_) | Kind::Options(..) => "object",
            Kind::Any | Kind::Loose(_) => return None,
        })
    }
}

/// Name of a value's type in Core's errors.
pub fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// The text of a value. Core: `UniValue::get_str`.
pub fn text(value: &Value) -> Result<&str, RpcError> {
    value.as_str().ok_or_else(|| wrong_type(value, "string"))
}

/// Core: `UniValue::checkType`.
pub fn wrong_type(value: &Value, expected: &str) -> RpcError {
    let text = format!("JSON value of type {} is not of expected type {expected}", type_name(value));
    RpcError::new(RPC_TYPE_ERROR, text)
}

/// The arguments of one call by position, of the right types. What is missing reads as null.
pub struct Args {
    wanted: &'static [Arg],
    values: Vec<Value>,
}

impl Args {
    /// Orders and checks what was given. None: too few or too many, and the answer is the help.
    pub fn new(wanted: &'static [Arg], params: Value) -> Result<Option<Args>, RpcError> {
        let values = match params {
            Value::Array(values) => values,
            Value::Object(named) => by_position(wanted, named)?,
            _ => Vec::new(),
        };
        let least = wanted.iter().rposition(|arg| arg.required).map_or(0, |last| last + 1);
        if values.len() < least || values.len() > wanted.len() {
            return Ok(None);
        }
        let mut wrong = Vec::new();
        for (number, (arg, value)) in
            wanted.iter().zip(values.iter().chain(std::iter::repeat(&Value::Null))).enumerate()
        {
            let Some(expected) = arg.expected() else { continue };
            let found = type_name(value);
            if found != expected && (arg.required || !value.is_null()) {
                let position = format!("Position {} ({})", number + 1, arg.names);
                let text = format!("JSON value of type {found} is not of expected type {expected}");
                wrong.push(format!("    \"{position}\": \"{text}\""));
            }
        }
        if !wrong.is_empty() {
            let text = format!("Wrong type passed:\n{{\n{}\n}}", wrong.join(",\n"));
            return Err(RpcError::new(RPC_TYPE_ERROR, text));
        }
        Ok(Some(Args { wanted, values }))
    }

    /// The first name of the argument at a position.
    pub fn name(&self, at: usize) -> &'static str {
        self.wanted.get(at).map_or("", Arg::name)
    }

    /// The value at a position.
    pub fn get(&self, at: usize) -> &Value {
        self.values.get(at).unwrap_or(&Value::Null)
    }

    /// All values that were given.
    pub fn all(&self) -> &[Value] {
        &self.values
    }

    /// The text at a position.
    pub fn text(&self, at: usize) -> Option<&str> {
        self.get(at).as_str()
    }

    /// The truth value at a position.
    pub fn bool(&self, at: usize) -> Option<bool> {
        self.get(at).as_bool()
    }

    /// The whole number at a position. Core: `UniValue::getInt`.
    pub fn int<T: TryFrom<i64>>(&self, at: usize) -> Result<Option<T>, RpcError> {
        let value = self.get(at);
        if value.is_null() {
            return Ok(None);
        }
        if !value.is_number() {
            return Err(wrong_type(value, "number"));
        }
        let number = value.as_i64().and_then(|number| T::try_from(number).ok());
        number.map(Some).ok_or_else(|| RpcError::new(RPC_MISC_ERROR, "JSON integer out of range"))
    }

    /// The hash at a position, under the argument's own name.
    pub fn hash<T: FromStr>(&self, at: usize) -> Result<T, RpcError> {
        hash(self.text(at).unwrap_or_default(), self.wanted.get(at).map_or("hash", Arg::name))
    }

    /// Core's `getblockheader` calls its argument another name in errors.
    pub fn hash_called<T: FromStr>(&self, at: usize, name: &str) -> Result<T, RpcError> {
        hash(self.text(at).unwrap_or_default(), name)
    }
}

/// Reads a hash as Core shows it. Core: `ParseHashV`.
pub fn hash<T: FromStr>(text: &str, name: &str) -> Result<T, RpcError> {
    let error = if text.len() != 64 {
        format!("{name} must be of length 64 (not {}, for '{text}')", text.len())
    } else {
        match text.parse() {
            Ok(hash) => return Ok(hash),
            Err(_) => format!("{name} must be hexadecimal string (not '{text}')"),
        }
    };
    Err(RpcError::new(RPC_INVALID_PARAMETER, error))
}

/// Puts named arguments into their places. `args` holds those that come first, by position.
/// Core: `transformNamedArguments`.
fn by_position(wanted: &[Arg], mut named: Map<String, Value>) -> Result<Vec<Value>, RpcError> {
    let refuse = |text: String| RpcError::new(RPC_INVALID_PARAMETER, text);
    let mut values = Vec::new();
    let mut first = None;
    for (at, arg) in wanted.iter().enumerate() {
        let mut value = arg.names.split('|').find_map(|name| named.remove(name));
        if let Kind::Options(_, members) = arg.kind {
            let found: Map<String, Value> = members.iter().filter_map(|member| named.remove_entry(*member)).collect();
            if let Some(member) = found.keys().next() {
                if value.is_some() {
                    return Err(refuse(format!("Parameter {} conflicts with parameter {member}", arg.name())));
                }
                value = Some(Value::Object(found));
            }
        }
        let Some(value) = value else { continue };
        values.resize(at, Value::Null);
        values.push(value);
        first.get_or_insert((at, arg.names));
    }
    if let Some(Value::Array(positional)) = named.get("args") {
        if let Some((_, names)) = first.filter(|(at, _)| *at < positional.len()) {
            return Err(refuse(format!("Parameter {names} specified twice both as positional and named argument")));
        }
        let mut all = positional.clone();
        all.extend(values.into_iter().skip(all.len()));
        values = all;
        named.remove("args");
    }
    match named.keys().next() {
        Some(unknown) => Err(refuse(format!("Unknown named parameter {unknown}"))),
        None => Ok(values),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    static ARGS: [Arg; 3] = [
        Arg::required("first", Kind::Number, ""),
        Arg::optional("second|other", Kind::Text, ""),
        Arg::optional("third", Kind::Bool, ""),
    ];

    #[test]
    fn arguments_come_by_position_by_name_and_mixed() {
        for (params, expected) in [
            (json!([1]), json!([1])),
            (json!([1, null, true]), json!([1, null, true])),
            (json!({"first": 1, "third": true}), json!([1, null, true])),
            (json!({"other": "x", "first": 1}), json!([1, "x"])),
            (json!({"args": [1], "third": false}), json!([1, null, false])),
            (json!({"args": [1, "x"]}), json!([1, "x"])),
        ] {
            let args = Args::new(&ARGS, params.clone()).expect("right types").expect("right number");
            assert_eq!(json!(args.all()), expected, "{params}");
        }
    }

    #[test]
    fn wrong_arguments_are_refused_in_cores_words() {
        for (params, code, text) in [
            (json!({"first": 1, "fourth": 1}), RPC_INVALID_PARAMETER, "Unknown named parameter fourth"),
            (
                json!({"args": [1, "x"], "other": "y"}),
                RPC_INVALID_PARAMETER,
                "Parameter second|other specified twice both as positional and named argument",
            ),
            (
                json!(["1", 2]),
                RPC_TYPE_ERROR,
                "Wrong type passed:\n{\n    \
                 \"Position 1 (first)\": \"JSON value of type string is not of expected type number\",\n    \
                 \"Position 2 (second|other)\": \"JSON value of type number is not of expected type string\"\n}",
            ),
        ] {
            let error = Args::new(&ARGS, params.clone()).err();
            assert_eq!(error, Some(RpcError::new(code, text)), "{params}");
        }
        for params in [json!([]), json!([1, "x", true, 4]), json!({"third": true, "args": []})] {
            let few_or_many = Args::new(&ARGS, params.clone());
            let wrong_count = matches!(few_or_many, Ok(None));
            assert_eq!(wrong_count, params.is_array(), "{params}");
        }
    }
}
