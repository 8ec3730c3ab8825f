//! Parameters out of JSON, none of them twice: of two members of one name `serde_json` would keep the last, and an output
//! of a transaction would be lost. Knows no method.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Reads a value, and notes the first name that an object of it has twice.
pub struct Once<'a> {
    /// What is wrong with that.
    twice: &'a mut Option<String>,
    /// It is the whole of the parameters.
    outermost: bool,
}

impl<'a> Once<'a> {
    /// Notes it there.
    pub fn new(twice: &'a mut Option<String>) -> Once<'a> {
        Once { twice, outermost: true }
    }

    fn inner(&mut self) -> Once<'_> {
        Once { twice: self.twice, outermost: false }
    }
}

impl<'de> DeserializeSeed<'de> for Once<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Once<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("it is not finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut from: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = from.next_element_seed(self.inner())? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut from: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some(name) = from.next_key::<String>()? {
            let value = from.next_value_seed(self.inner())?;
            if members.contains_key(&name) {
                // Core's words for parameters by name; for what is deeper it has several.
                let text = match self.outermost {
                    true => format!("Parameter {name} specified multiple times"),
                    false => format!("Invalid parameter, duplicate key: {name}"),
                };
                self.twice.get_or_insert(text);
            }
            members.insert(name, value);
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_keep_their_order_and_come_once() {
        let read = |json: &str| {
            let mut twice = None;
            let value = Once::new(&mut twice).deserialize(&mut serde_json::Deserializer::from_str(json));
            (value.map(|value| value.to_string()).ok(), twice)
        };
        let all = r#"[null,true,-1,18446744073709551615,0.5,"x",{"b":{"d":1,"c":[]},"a":2}]"#;
        assert_eq!(read(all), (Some(all.to_owned()), None));
        let twice = |json| read(json).1.expect("a name is there twice");
        assert_eq!(twice(r#"{"height":0,"height":1}"#), "Parameter height specified multiple times");
        assert_eq!(twice(r#"[[],{"data":"00","x":1,"data":"00"}]"#), "Invalid parameter, duplicate key: data");
        assert_eq!(read("[1e400]").0, None, "a number that is none here");
    }
}
