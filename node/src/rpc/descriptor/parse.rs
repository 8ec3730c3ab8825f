//! Reads the text of a descriptor: functions, keys and trees of scripts. Core: `ParseScript` in `src/script/descriptor.cpp`.

use bitcoin::ScriptBuf;
use groat_chain::params::AddressSet;
use groat_chain::script::taproot::TAPROOT_CONTROL_MAX_NODE_COUNT;
use groat_chain::script::{MAX_PUBKEYS_PER_MULTISIG, MAX_SCRIPT_ELEMENT_SIZE};

use super::super::fragment::Fragment;
use super::super::keyexpr::{Key, Place};
use super::super::script::{address_of, from_address};
use super::{Node, Tree};

/// Core's name and value.
const MAX_PUBKEYS_PER_MULTI_A: usize = 999;

/// Reads scripts of descriptors.
pub(super) struct Parser {
    pub(super) addresses: AddressSet,
}

/// A node, and how many descriptors it makes.
pub(super) type Parsed = Result<(Node<Key>, usize), String>;

impl Parser {
    fn key(&self, text: &str, place: Place) -> Result<Key, String> {
        Key::parse(text, place, self.addresses.kind())
    }

    /// Reads one expression off the front. Core: `ParseScript`.
    pub(super) fn script(&self, rest: &mut &str, place: Place) -> Parsed {
        let whole = expression(rest);
        let top = place == Place::Top;
        let single = |name: &'static str, inside, place| {
            let key = self.key(inside, place).map_err(|error| format!("{name}(): {error}"))?;
            let branches = key.branches();
            Ok((Node::Single(name, key, place == Place::P2tr), branches))
        };
        if let Some(inside) = function("pk", whole) {
            return single("pk", inside, place);
        }
        if let Some(inside) = function("pkh", whole).filter(|_| place != Place::P2tr) {
            return single("pkh", inside, place);
        }
        if let Some(inside) = function("combo", whole) {
            return if top { single("combo", inside, place) } else { Err("Can only have combo() at top level".into()) };
        }
        for name in ["multi", "sortedmulti", "multi_a", "sortedmulti_a"] {
            let Some(inside) = function(name, whole) else { continue };
            return match (name.ends_with("_a"), place == Place::P2tr) {
                (false, true) => Err("Can only have multi/sortedmulti at top level, in sh(), or in wsh()".into()),
                (true, false) => Err("Can only have multi_a/sortedmulti_a inside tr()".into()),
                _ => self.multi(name, inside, place),
            };
        }
        if let Some(inside) = function("wpkh", whole) {
            return match place {
                Place::Top | Place::P2sh => single_wpkh(self.key(inside, Place::P2wpkh)),
                _ => Err("Can only have wpkh() at top level or inside sh()".into()),
            };
        }
        if let Some(inside) = function("sh", whole) {
            return if top {
                self.wrapped("sh", inside, Place::P2sh)
            } else {
                Err("Can only have sh() at top level".into())
            };
        }
        if let Some(inside) = function("wsh", whole) {
            return match place {
                Place::Top | Place::P2sh => self.wrapped("wsh", inside, Place::P2wsh),
                _ => Err("Can only have wsh() at top level or inside sh()".into()),
            };
        }
        if let Some(inside) = function("addr", whole) {
            if !top {
                return Err("Can only have addr() at top level".into());
            }
            let script = from_address(inside, self.addresses).ok_or("Address is not valid")?;
            let text = address_of(&script, self.addresses).ok_or("Address is not valid")?;
            return Ok((Node::Address(script, text), 1));
        }
        if let Some(inside) = function("tr", whole) {
            return if top { self.taproot(inside) } else { Err("Can only have tr at top level".into()) };
        }
        if let Some(mut inside) = function("rawtr", whole) {
            if !top {
                return Err("Can only have rawtr at top level".into());
            }
            let key = expression(&mut inside);
            if !inside.is_empty() {
                return Err("rawtr(): only one key expected.".into());
            }
            return single("rawtr", key, Place::P2tr);
        }
        if let Some(inside) = function("raw", whole) {
            if !top {
                return Err("Can only have raw() at top level".into());
            }
            let script = ScriptBuf::from_hex(inside).ok().filter(|_| !inside.is_empty());
            return Ok((Node::Raw(script.ok_or("Raw script is not hex")?), 1));
        }
        match Fragment::parse(whole, place, &|text, place| self.key(text, place))? {
            Some(fragment) => {
                let branches = common(fragment.keys().map(Key::branches))
                    .ok_or("Miniscript: Multipath derivation paths have mismatched lengths")?;
                Ok((Node::Miniscript(Box::new(fragment)), branches))
            }
            None if place == Place::P2sh => Err("A function is needed within P2SH".into()),
            None if place == Place::P2wsh => Err("A function is needed within P2WSH".into()),
            None => Err(format!("'{whole}' is not a valid descriptor function")),
        }
    }

    fn wrapped(&self, name: &'static str, mut inside: &str, place: Place) -> Parsed {
        let (inner, branches) = self.script(&mut inside, place)?;
        nothing_left(inside)?;
        Ok((Node::Wrapped(name, Box::new(inner)), branches))
    }

    fn multi(&self, name: &'static str, mut rest: &str, place: Place) -> Parsed {
        let text = expression(&mut rest);
        let plain = !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
        let required: Option<u32> = text.parse().ok().filter(|_| plain);
        let required = required.ok_or_else(|| format!("Multi threshold '{text}' is not valid"))? as usize;
        let mut keys = Vec::new();
        while let Some(first) = rest.chars().next() {
            rest = rest.strip_prefix(',').ok_or_else(|| format!("Multi: expected ',', got '{first}'"))?;
            let key = self.key(expression(&mut rest), place).map_err(|error| format!("Multi: {error}"))?;
            keys.push(key);
        }
        let (count, size) = (keys.len(), keys.iter().map(|key| key.size() + 1).sum::<usize>() + 3);
        let (kind, most) = match name.ends_with("_a") {
            true => ("multi_a", MAX_PUBKEYS_PER_MULTI_A),
            false => ("multisig", MAX_PUBKEYS_PER_MULTISIG),
        };
        if count == 0 || count > most {
            let text = format!("must have between 1 and {most} keys, inclusive");
            return Err(format!("Cannot have {count} keys in {kind}; {text}"));
        }
        if required < 1 {
            return Err(format!("Multisig threshold cannot be {required}, must be at least 1"));
        }
        if required > count {
            return Err(format!(
                "Multisig threshold cannot be larger than the number of keys; threshold is {required} but only {count} \
                 keys specified"
            ));
        }
        if place == Place::Top && count > 3 {
            return Err(format!("Cannot have {count} pubkeys in bare multisig; only at most 3 pubkeys"));
        }
        if place == Place::P2sh && size > MAX_SCRIPT_ELEMENT_SIZE {
            return Err(format!(
                "P2SH script is too large, {size} bytes is larger than {MAX_SCRIPT_ELEMENT_SIZE} bytes"
            ));
        }
        let branches = common(keys.iter().map(Key::branches))
            .ok_or("multi(): Multipath derivation paths have mismatched lengths")?;
        Ok((Node::Multi { name, required, keys }, branches))
    }

    fn taproot(&self, mut rest: &str) -> Parsed {
        let key = self.key(expression(&mut rest), Place::P2tr).map_err(|error| format!("tr(): {error}"))?;
        let (mut tree, mut lengths) = (None, Vec::new());
        if let Some(first) = rest.chars().next() {
            rest = rest.strip_prefix(',').ok_or_else(|| format!("tr: expected ',', got '{first}'"))?;
            tree = Some(self.tree(&mut rest, 0, &mut lengths)?);
            if !rest.is_empty() {
                return Err("tr(): expected ')' after script expression".into());
            }
        }
        let most = lengths.iter().copied().max().unwrap_or(1).max(key.branches());
        if lengths.iter().any(|length| *length != 1 && *length != most) {
            return Err("tr(): Multipath subscripts have mismatched lengths".into());
        }
        if key.branches() > 1 && key.branches() != most {
            return Err("tr(): Multipath internal key mismatches multipath subscripts lengths".into());
        }
        Ok((Node::Taproot(key, tree), most))
    }

    fn tree(&self, rest: &mut &str, depth: usize, lengths: &mut Vec<usize>) -> Result<Tree<Key>, String> {
        let Some(inside) = rest.strip_prefix('{') else {
            let (node, branches) = self.script(rest, Place::P2tr)?;
            lengths.push(branches);
            return Ok(Tree::Leaf(Box::new(node)));
        };
        if depth == TAPROOT_CONTROL_MAX_NODE_COUNT {
            return Err(format!("tr() supports at most {TAPROOT_CONTROL_MAX_NODE_COUNT} nesting levels"));
        }
        *rest = inside;
        let left = self.tree(rest, depth + 1, lengths)?;
        *rest = rest.strip_prefix(',').ok_or("tr(): expected ',' after script expression")?;
        let right = self.tree(rest, depth + 1, lengths)?;
        *rest = rest.strip_prefix('}').ok_or("tr(): expected '}' after script expression")?;
        Ok(Tree::Branch(Box::new(left), Box::new(right)))
    }
}

fn single_wpkh(key: Result<Key, String>) -> Parsed {
    let key = key.map_err(|error| format!("wpkh(): {error}"))?;
    let branches = key.branches();
    Ok((Node::Single("wpkh", key, false), branches))
}

/// The greatest length, if all are that or 1.
fn common(lengths: impl Iterator<Item = usize> + Clone) -> Option<usize> {
    let most = lengths.clone().max().unwrap_or(1);
    lengths.into_iter().all(|length| length == 1 || length == most).then_some(most)
}

/// Core says nothing of what is wrong here.
pub(super) fn nothing_left(rest: &str) -> Result<(), String> {
    if rest.is_empty() { Ok(()) } else { Err(String::new()) }
}

/// What is inside `name(...)`. Core: `script::Func`.
fn function<'a>(name: &str, text: &'a str) -> Option<&'a str> {
    text.strip_prefix(name)?.strip_prefix('(')?.strip_suffix(')')
}

/// Takes what comes before the next comma or closing bracket of this level. Core: `script::Expr`.
fn expression<'a>(rest: &mut &'a str) -> &'a str {
    let mut level = 0;
    let end = rest.bytes().position(|letter| {
        match letter {
            b'(' | b'{' => level += 1,
            b')' | b'}' if level > 0 => level -= 1,
            b')' | b'}' | b',' if level == 0 => return true,
            _ => {}
        }
        false
    });
    let (taken, left) = rest.split_at(end.unwrap_or(rest.len()));
    *rest = left;
    taken
}
