//! Output descriptors (BIP380 to BIP386, BIP389) as Core takes them at the RPC (`src/script/descriptor.cpp`), with its
//! texts. `parse` reads functions and keys; miniscript inside `wsh()` and `tr()` by the `miniscript` crate.
//!
//! Other than Core: no `musig()` and no `unused()`; a private key serves only the key expression that it stands in; of a
//! miniscript whose types do not fit the whole expression is called invalid, not its smallest part; and of text that
//! cannot be read as a miniscript a bad key within is not told.

mod parse;

use bitcoin::opcodes::all::*;
use bitcoin::script::Builder;
use bitcoin::taproot::{LeafVersion, TapNodeHash, TapTweakHash};
use bitcoin::{PublicKey, ScriptBuf};
use groat_chain::params::AddressSet;
use hex::DisplayHex;

use super::address::CHARSET;
use super::fragment::Fragment;
use super::keyexpr::{Key, Place, Point, SECP, hex_of};
use super::script::infer;
use parse::{Parser, nothing_left};

/// One descriptor, or several that differ in one step of their paths.
pub struct Descriptor {
    addresses: AddressSet,
    node: Node<Key>,
    branches: usize,
}

/// A script of a descriptor.
pub struct Output {
    /// The output script.
    pub script: ScriptBuf,
    /// The descriptor of this script alone, with checksum.
    pub text: String,
}

/// What a descriptor is made of: with key expressions, or with keys.
#[derive(Clone)]
enum Node<K> {
    Raw(ScriptBuf),
    Address(ScriptBuf, String),
    /// `pk`, `pkh`, `wpkh`, `combo` or `rawtr`; whether its key has x alone.
    Single(&'static str, K, bool),
    Multi {
        name: &'static str,
        required: usize,
        keys: Vec<K>,
    },
    /// `sh` or `wsh`.
    Wrapped(&'static str, Box<Node<K>>),
    Taproot(K, Option<Tree<K>>),
    Miniscript(Box<Fragment<K>>),
}

#[derive(Clone)]
enum Tree<K> {
    Leaf(Box<Node<K>>),
    Branch(Box<Tree<K>>, Box<Tree<K>>),
}

impl Descriptor {
    /// Reads one. `with_checksum`: it must have one.
    pub fn parse(text: &str, addresses: AddressSet, with_checksum: bool) -> Result<Descriptor, String> {
        let (payload, given) = match text.split_once('#') {
            Some((_, given)) if given.contains('#') => return Err("Multiple '#' symbols".into()),
            None if with_checksum => return Err("Missing checksum".into()),
            Some((payload, given)) => (payload, Some(given)),
            None => (text, None),
        };
        if let Some(given) = given.filter(|given| given.len() != 8) {
            return Err(format!("Expected 8 character checksum, not {} characters", given.len()));
        }
        let computed = checksum(payload).ok_or("Invalid characters in payload")?;
        if let Some(given) = given.filter(|given| *given != computed) {
            return Err(format!("Provided checksum '{given}' does not match computed checksum '{computed}'"));
        }
        let mut rest = payload;
        let (node, branches) = Parser { addresses }.script(&mut rest, Place::Top)?;
        nothing_left(rest)?;
        Ok(Descriptor { addresses, node, branches })
    }

    /// How many descriptors it is (BIP389).
    pub fn branches(&self) -> usize {
        self.branches
    }

    /// In canonical form with checksum, without private keys.
    pub fn text(&self, branch: usize) -> String {
        with_checksum(&self.node.text(&|key: &Key| key.text(branch)))
    }

    /// Whether its scripts depend on an index.
    pub fn is_range(&self) -> bool {
        self.keys().iter().any(|key| key.is_range())
    }

    /// Whether it says how to spend its outputs, given the private keys.
    pub fn is_solvable(&self) -> bool {
        !matches!(self.node, Node::Raw(_) | Node::Address(..))
    }

    /// Whether a private key was given.
    pub fn has_private_keys(&self) -> bool {
        self.keys().iter().any(|key| key.has_secret())
    }

    /// Its scripts at an index: several for `combo()`. None if that takes a private key that was not given.
    pub fn at(&self, branch: usize, index: u32) -> Option<Vec<Output>> {
        let node = self.node.map(&|key: &Key, x_only| key.at(branch, index, x_only).ok_or(())).ok()?;
        Some(node.outputs(self.addresses))
    }

    fn keys(&self) -> Vec<&Key> {
        let mut keys = Vec::new();
        self.node.each_key(&mut |key| keys.push(key));
        keys
    }
}

impl<K: Clone> Node<K> {
    fn each_key<'a>(&'a self, visit: &mut impl FnMut(&'a K)) {
        match self {
            Node::Raw(_) | Node::Address(..) => {}
            Node::Single(_, key, _) => visit(key),
            Node::Multi { keys, .. } => keys.iter().for_each(visit),
            Node::Wrapped(_, inner) => inner.each_key(visit),
            Node::Taproot(key, tree) => {
                visit(key);
                if let Some(tree) = tree {
                    tree.each_key(visit);
                }
            }
            Node::Miniscript(fragment) => fragment.keys().for_each(visit),
        }
    }

    /// The same with other keys; a key is told whether its x alone counts. Sorted keys are put in order by whom they become.
    fn map<Q: Clone, E>(&self, change: &impl Fn(&K, bool) -> Result<Q, E>) -> Result<Node<Q>, E> {
        Ok(match self {
            Node::Raw(script) => Node::Raw(script.clone()),
            Node::Address(script, text) => Node::Address(script.clone(), text.clone()),
            Node::Single(name, key, x_only) => Node::Single(name, change(key, *x_only)?, *x_only),
            Node::Multi { name, required, keys } => {
                let x_only = name.ends_with("_a");
                let keys = keys.iter().map(|key| change(key, x_only)).collect::<Result<_, E>>()?;
                Node::Multi { name, required: *required, keys }
            }
            Node::Wrapped(name, inner) => Node::Wrapped(name, Box::new(inner.map(change)?)),
            Node::Taproot(key, tree) => {
                let tree = tree.as_ref().map(|tree| tree.map(change)).transpose()?;
                Node::Taproot(change(key, true)?, tree)
            }
            Node::Miniscript(fragment) => Node::Miniscript(Box::new(fragment.map(change)?)),
        })
    }

    fn text(&self, show: &impl Fn(&K) -> String) -> String {
        match self {
            Node::Raw(script) => format!("raw({})", script.as_bytes().as_hex()),
            Node::Address(_, text) => format!("addr({text})"),
            Node::Single(name, key, _) => format!("{name}({})", show(key)),
            Node::Multi { name, required, keys } => {
                let keys: String = keys.iter().map(|key| format!(",{}", show(key))).collect();
                format!("{name}({required}{keys})")
            }
            Node::Wrapped(name, inner) => format!("{name}({})", inner.text(show)),
            Node::Taproot(key, None) => format!("tr({})", show(key)),
            Node::Taproot(key, Some(tree)) => format!("tr({},{})", show(key), tree.text(show)),
            Node::Miniscript(fragment) => fragment.text(show),
        }
    }
}

impl<K: Clone> Tree<K> {
    fn each_key<'a>(&'a self, visit: &mut impl FnMut(&'a K)) {
        match self {
            Tree::Leaf(node) => node.each_key(visit),
            Tree::Branch(left, right) => {
                left.each_key(visit);
                right.each_key(visit);
            }
        }
    }

    fn map<Q: Clone, E>(&self, change: &impl Fn(&K, bool) -> Result<Q, E>) -> Result<Tree<Q>, E> {
        Ok(match self {
            Tree::Leaf(node) => Tree::Leaf(Box::new(node.map(change)?)),
            Tree::Branch(left, right) => Tree::Branch(Box::new(left.map(change)?), Box::new(right.map(change)?)),
        })
    }

    fn text(&self, show: &impl Fn(&K) -> String) -> String {
        match self {
            Tree::Leaf(node) => node.text(show),
            Tree::Branch(left, right) => format!("{{{},{}}}", left.text(show), right.text(show)),
        }
    }
}

impl Node<Point> {
    /// What the descriptor stands for, each with its own descriptor as Core infers it from script and keys.
    fn outputs(&self, addresses: AddressSet) -> Vec<Output> {
        let output = |node: &Node<Point>| {
            let script = node.script();
            let text = match node {
                Node::Raw(_) | Node::Address(..) => infer(&script, addresses),
                node => with_checksum(&node.inferred().text(&|point: &Point| point.text.clone())),
            };
            Output { script, text }
        };
        match self {
            Node::Single("combo", point, _) => {
                let single = |name| Node::Single(name, point.clone(), false);
                let mut nodes = vec![single("pk"), single("pkh")];
                if point.key.compressed {
                    nodes.extend([single("wpkh"), Node::Wrapped("sh", Box::new(single("wpkh")))]);
                }
                nodes.iter().map(output).collect()
            }
            node => vec![output(node)],
        }
    }

    /// Sorted keys in their order, as a script shows them.
    fn inferred(&self) -> Node<Point> {
        match self {
            Node::Multi { name, required, keys } => {
                Node::Multi { name: name.trim_start_matches("sorted"), required: *required, keys: in_order(name, keys) }
            }
            Node::Wrapped(name, inner) => Node::Wrapped(name, Box::new(inner.inferred())),
            Node::Taproot(key, Some(tree)) => Node::Taproot(key.clone(), Some(tree.inferred())),
            other => other.clone(),
        }
    }

    fn script(&self) -> ScriptBuf {
        let x_only = |point: &Point| point.key.inner.x_only_public_key().0;
        match self {
            Node::Raw(script) | Node::Address(script, _) => script.clone(),
            Node::Single("pk", point, false) => ScriptBuf::new_p2pk(&point.key),
            Node::Single("pk", point, true) => {
                Builder::new().push_x_only_key(&x_only(point)).push_opcode(OP_CHECKSIG).into_script()
            }
            Node::Single("pkh", point, _) => ScriptBuf::new_p2pkh(&point.key.pubkey_hash()),
            Node::Single("rawtr", point, _) => taproot_output(x_only(point).serialize()),
            Node::Single(_, point, _) => {
                ScriptBuf::new_p2wpkh(&point.key.wpubkey_hash().expect("wpkh() takes compressed keys only"))
            }
            Node::Multi { name, required, keys } if name.ends_with("_a") => {
                let mut script = Builder::new();
                for (number, point) in in_order(name, keys).iter().enumerate() {
                    let check = if number == 0 { OP_CHECKSIG } else { OP_CHECKSIGADD };
                    script = script.push_x_only_key(&x_only(point)).push_opcode(check);
                }
                script.push_int(*required as i64).push_opcode(OP_NUMEQUAL).into_script()
            }
            Node::Multi { name, required, keys } => {
                let keys: Vec<PublicKey> = in_order(name, keys).iter().map(|point| point.key).collect();
                multisig(*required, &keys)
            }
            Node::Wrapped("sh", inner) => inner.script().to_p2sh(),
            Node::Wrapped(_, inner) => inner.script().to_p2wsh(),
            Node::Taproot(point, tree) => {
                let tweak = TapTweakHash::from_key_and_tweak(x_only(point), tree.as_ref().map(Tree::root));
                let tweaked = x_only(point).add_tweak(&SECP, &tweak.to_scalar());
                let (output, _) = tweaked.expect("nobody finds a key that its own hash cancels");
                taproot_output(output.serialize())
            }
            Node::Miniscript(fragment) => fragment.script(),
        }
    }
}

impl Tree<Point> {
    fn inferred(&self) -> Tree<Point> {
        match self {
            Tree::Leaf(node) => Tree::Leaf(Box::new(node.inferred())),
            Tree::Branch(left, right) => {
                // The hashes do not tell left from right: what holds the least script comes first.
                let (left, right) = if right.least() < left.least() { (right, left) } else { (left, right) };
                Tree::Branch(Box::new(left.inferred()), Box::new(right.inferred()))
            }
        }
    }

    fn least(&self) -> ScriptBuf {
        match self {
            Tree::Leaf(node) => node.script(),
            Tree::Branch(left, right) => left.least().min(right.least()),
        }
    }

    fn root(&self) -> TapNodeHash {
        match self {
            Tree::Leaf(node) => TapNodeHash::from_script(&node.script(), LeafVersion::TapScript),
            Tree::Branch(left, right) => TapNodeHash::from_node_hashes(left.root(), right.root()),
        }
    }
}

/// The keys as the script has them.
fn in_order(name: &str, keys: &[Point]) -> Vec<Point> {
    let mut keys = keys.to_vec();
    if name.starts_with("sorted") {
        keys.sort_by_key(|point| hex_of(&point.key, name.ends_with("_a")));
    }
    keys
}

fn taproot_output(key: [u8; 32]) -> ScriptBuf {
    Builder::new().push_opcode(OP_PUSHNUM_1).push_slice(key).into_script()
}

/// Core: `GetScriptForMultisig`.
pub fn multisig(required: usize, keys: &[PublicKey]) -> ScriptBuf {
    let script = keys.iter().fold(Builder::new().push_int(required as i64), |script, key| script.push_key(key));
    script.push_int(keys.len() as i64).push_opcode(OP_CHECKMULTISIG).into_script()
}

/// The letters of a descriptor, in groups of 32 (BIP380).
const INPUT_CHARSET: &[u8; 95] =
    b"0123456789()[],'/*abcdefgh@:$%{}IJKLMNOPQRSTUVWXYZ&+-.;<=>?!^_|~ijklmnopqrstuvwxyzABCDEFGH`#\"\\ ";

/// The eight letters after a descriptor's `#`; none if a letter is not allowed ([BIP-0380]).
///
/// [BIP-0380]: https://github.com/bitcoin/bips/blob/master/bip-0380.mediawiki
pub fn checksum(descriptor: &str) -> Option<String> {
    const GENERATOR: [u64; 5] = [0xf5_dee5_1989, 0xa9_fdca_3312, 0x1b_ab10_e32d, 0x37_06b1_677a, 0x64_4d62_6ffd];
    let step = |sum: u64, symbol: u64| {
        let top = sum >> 35;
        let terms = GENERATOR.iter().enumerate().filter(|(bit, _)| top >> bit & 1 == 1);
        terms.fold((sum & 0x7_ffff_ffff) << 5 ^ symbol, |sum, (_, term)| sum ^ term)
    };
    let places: Option<Vec<u64>> = descriptor
        .bytes()
        .map(|letter| INPUT_CHARSET.iter().position(|other| *other == letter).map(|place| place as u64))
        .collect();
    // Each letter gives its place in its group; three letters together give one symbol more for their groups.
    let mut sum = places?.chunks(3).fold(1, |sum, three| {
        let sum = three.iter().fold(sum, |sum, place| step(sum, place & 31));
        step(sum, three.iter().fold(0, |groups, place| groups * 3 + (place >> 5)))
    });
    sum = (0..8).fold(sum, |sum, _| step(sum, 0)) ^ 1;
    Some((0..8).map(|at| char::from(CHARSET[(sum >> (5 * (7 - at)) & 31) as usize])).collect())
}

/// A descriptor with `#` and its checksum. Its letters must all be allowed.
pub fn with_checksum(descriptor: &str) -> String {
    let checksum = checksum(descriptor).expect("descriptors made here have allowed letters only");
    format!("{descriptor}#{checksum}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Descriptor, String> {
        Descriptor::parse(text, AddressSet::Regtest, false)
    }

    #[test]
    fn wrong_descriptors_are_refused_in_cores_words() {
        for (text, error) in [
            ("raw(51)#8lvh9jxq", "Provided checksum '8lvh9jxq' does not match computed checksum '8lvh9jxk'"),
            ("raw(51)#8lvh", "Expected 8 character checksum, not 4 characters"),
            ("raw(51)##", "Multiple '#' symbols"),
            ("raw(é)", "Invalid characters in payload"),
            ("raw(5)", "Raw script is not hex"),
            ("addr(1)", "Address is not valid"),
            ("nothing", "'nothing' is not a valid descriptor function"),
            ("sh(wsh(wpkh()))", "Can only have wpkh() at top level or inside sh()"),
        ] {
            assert_eq!(read(text).err(), Some(error.to_string()), "{text}");
        }
        assert!(Descriptor::parse("raw(51)", AddressSet::Regtest, true).is_err(), "a checksum is asked for");
    }

    #[test]
    fn private_keys_are_never_shown() {
        let secret = "cMahea7zqjxrtgAbB7LSGbcQUr1uX1ojuat9jZodMN87JcbXMTcA";
        for text in [format!("wsh(and_v(v:pk({secret}),older(5)))"), format!("tr({secret},pk({secret}))")] {
            let descriptor = read(&text).expect("it is a descriptor");
            assert!(descriptor.has_private_keys(), "{text}");
            let outputs = descriptor.at(0, 0).expect("nothing is hardened");
            let shown = outputs.iter().map(|output| output.text.clone()).chain([descriptor.text(0)]);
            for shown in shown {
                assert!(!shown.contains(&secret[1..20]), "{text} shows its key: {shown}");
            }
        }
    }
}
