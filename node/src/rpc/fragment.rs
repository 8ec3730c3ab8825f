//! A miniscript inside a descriptor, with keys of the descriptor's own. Reading, types and bounds are the `miniscript`
//! crate's; texts of errors are Core's (`src/script/descriptor.cpp`).

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::hashes::{hash160, ripemd160, sha256};
use bitcoin::{PublicKey, ScriptBuf, XOnlyPublicKey};
use miniscript::miniscript::hash256;
use miniscript::{
    Error, Miniscript, MiniscriptKey, ScriptContext, Segwitv0, Tap, Terminal, ToPublicKey, TranslatePk, Translator,
};

use super::keyexpr::{Key, Place, Point};

/// A miniscript; its keys by the text that stands for them in it.
#[derive(Clone)]
pub struct Fragment<K> {
    form: Form,
    keys: BTreeMap<String, K>,
    /// Those that scripts show as hashes.
    hashed: BTreeSet<String>,
}

#[derive(Clone)]
enum Form {
    Segwit(Miniscript<String, Segwitv0>),
    Tap(Miniscript<String, Tap>),
}

/// Reads a key expression.
type ReadKey<'a> = &'a dyn Fn(&str, Place) -> Result<Key, String>;

impl Fragment<Key> {
    /// Reads one; none if it is no miniscript at all.
    pub fn parse(text: &str, place: Place, key: ReadKey<'_>) -> Result<Option<Fragment<Key>>, String> {
        if place == Place::P2wsh {
            Fragment::parse_in(text, place, Form::Segwit, key)
        } else {
            Fragment::parse_in(text, place, Form::Tap, key)
        }
    }

    fn parse_in<C: ScriptContext>(
        text: &str,
        place: Place,
        form: fn(Miniscript<String, C>) -> Form,
        key: ReadKey<'_>,
    ) -> Result<Option<Fragment<Key>>, String> {
        let read = match Miniscript::<String, C>::from_str_insane(text) {
            Ok(read) => read,
            Err(Error::NonTopLevel(_)) => return Err(format!("{text} is not sane")),
            Err(Error::TypeCheck(_)) => return Err(format!("{text} is invalid")),
            Err(_) => return Ok(None),
        };
        let mut keys = BTreeMap::new();
        let inside = if place == Place::P2wsh { place } else { Place::P2tr };
        for word in read.iter_pk() {
            keys.insert(word.clone(), key(&word, inside)?);
        }
        let Some(shown) = with_texts(&read, &|word: &str| keys[word].text(0)) else { return Ok(None) };
        if !matches!(place, Place::P2wsh | Place::P2tr) {
            return Err("Miniscript expressions can only be used in wsh or tr.".into());
        }
        if let Some(error) = insanity(&shown) {
            return Err(error);
        }
        let hashed = read.iter().filter_map(|part| match &part.node {
            Terminal::PkH(word) => Some(word.clone()),
            _ => None,
        });
        Ok(Some(Fragment { hashed: hashed.collect(), form: form(read), keys }))
    }
}

impl<K> Fragment<K> {
    /// All keys, each once.
    pub fn keys(&self) -> impl Iterator<Item = &K> + Clone {
        self.keys.values()
    }

    /// The same with other keys; a key is told whether its x alone counts.
    pub fn map<Q, E>(&self, change: &impl Fn(&K, bool) -> Result<Q, E>) -> Result<Fragment<Q>, E> {
        // Core, which finds keys by their hashes, shows these whole.
        let x_only = |word| matches!(self.form, Form::Tap(_)) && !self.hashed.contains(word);
        let keys = self.keys.iter().map(|(word, key)| Ok((word.clone(), change(key, x_only(word))?)));
        let keys = keys.collect::<Result<_, E>>()?;
        Ok(Fragment { form: self.form.clone(), keys, hashed: self.hashed.clone() })
    }

    /// As it is written, with keys as `show` shows them.
    pub fn text(&self, show: &impl Fn(&K) -> String) -> String {
        let key = |word: &str| show(&self.keys[word]);
        let text = match &self.form {
            Form::Segwit(read) => with_texts(read, &key).map(|shown| shown.to_string()),
            Form::Tap(read) => with_texts(read, &key).map(|shown| shown.to_string()),
        };
        text.expect("it could be shown when it was read")
    }
}

impl Fragment<Point> {
    /// The script.
    pub fn script(&self) -> ScriptBuf {
        let key = |word: &str| self.keys[word].key;
        let script = match &self.form {
            Form::Segwit(read) => with_keys::<PublicKey, _>(read, &key).map(|whole| whole.encode()),
            Form::Tap(read) => {
                let x_only = |word: &str| key(word).inner.x_only_public_key().0;
                with_keys::<XOnlyPublicKey, _>(read, &x_only).map(|whole| whole.encode())
            }
        };
        script.expect("hashes and keys were checked when it was read")
    }
}

/// A witness script as the miniscript that it is, with keys in hex; none if it is none, or not a sane one.
/// Core: `InferScript` inside `wsh()`.
pub fn infer_witness_script(script: &bitcoin::Script) -> Option<String> {
    let read = Miniscript::<PublicKey, Segwitv0>::parse(script).ok()?;
    Some(read.to_string())
}

/// Core: the texts of `ParseScript` for what `IsSane` refuses.
fn insanity<C: ScriptContext>(whole: &Miniscript<String, C>) -> Option<String> {
    let sane = |part: &Miniscript<String, C>| {
        part.is_non_malleable()
            && !part.has_mixed_timelocks()
            && !part.has_repeated_keys()
            && part.within_resource_limits()
    };
    if sane(whole) && whole.requires_sig() {
        return None;
    }
    let part = first(whole, &|part| !sane(part)).unwrap_or(whole);
    let reason = if !part.is_non_malleable() {
        ": malleable witnesses exist"
    } else if std::ptr::eq(part, whole) && !part.requires_sig() {
        ": witnesses without signature exist"
    } else if part.has_mixed_timelocks() {
        ": contains mixes of timelocks expressed in blocks and seconds"
    } else if part.has_repeated_keys() {
        ": contains duplicate public keys"
    } else {
        ": needs witnesses that may exceed resource limits"
    };
    Some(format!("{part} is not sane{reason}"))
}

/// The first part, from the leaves up, of which this holds.
fn first<'a, C: ScriptContext>(
    part: &'a Miniscript<String, C>,
    holds: &impl Fn(&Miniscript<String, C>) -> bool,
) -> Option<&'a Miniscript<String, C>> {
    part.branches().into_iter().find_map(|inner| first(inner, holds)).or_else(|| holds(part).then_some(part))
}

fn with_texts<C: ScriptContext>(
    read: &Miniscript<String, C>,
    key: &dyn Fn(&str) -> String,
) -> Option<Miniscript<String, C>> {
    read.translate_pk(&mut Texts(key)).ok()
}

fn with_keys<Q, C: ScriptContext>(read: &Miniscript<String, C>, key: &dyn Fn(&str) -> Q) -> Option<Miniscript<Q, C>>
where
    Q: ToPublicKey
        + MiniscriptKey<
            Sha256 = sha256::Hash,
            Hash256 = hash256::Hash,
            Ripemd160 = ripemd160::Hash,
            Hash160 = hash160::Hash,
        >,
{
    read.translate_pk(&mut Keys(key)).ok()
}

struct Texts<'a>(&'a dyn Fn(&str) -> String);

impl Translator<String, String, ()> for Texts<'_> {
    fn pk(&mut self, word: &String) -> Result<String, ()> {
        Ok((self.0)(word))
    }

    fn sha256(&mut self, hash: &String) -> Result<String, ()> {
        Ok(hash.parse::<sha256::Hash>().map_err(drop)?.to_string())
    }

    fn hash256(&mut self, hash: &String) -> Result<String, ()> {
        Ok(hash.parse::<hash256::Hash>().map_err(drop)?.to_string())
    }

    fn ripemd160(&mut self, hash: &String) -> Result<String, ()> {
        Ok(hash.parse::<ripemd160::Hash>().map_err(drop)?.to_string())
    }

    fn hash160(&mut self, hash: &String) -> Result<String, ()> {
        Ok(hash.parse::<hash160::Hash>().map_err(drop)?.to_string())
    }
}

struct Keys<'a, Q>(&'a dyn Fn(&str) -> Q);

impl<Q> Translator<String, Q, ()> for Keys<'_, Q>
where
    Q: MiniscriptKey<
            Sha256 = sha256::Hash,
            Hash256 = hash256::Hash,
            Ripemd160 = ripemd160::Hash,
            Hash160 = hash160::Hash,
        >,
{
    fn pk(&mut self, word: &String) -> Result<Q, ()> {
        Ok((self.0)(word))
    }

    fn sha256(&mut self, hash: &String) -> Result<sha256::Hash, ()> {
        hash.parse().map_err(drop)
    }

    fn hash256(&mut self, hash: &String) -> Result<hash256::Hash, ()> {
        hash.parse().map_err(drop)
    }

    fn ripemd160(&mut self, hash: &String) -> Result<ripemd160::Hash, ()> {
        hash.parse().map_err(drop)
    }

    fn hash160(&mut self, hash: &String) -> Result<hash160::Hash, ()> {
        hash.parse().map_err(drop)
    }
}
