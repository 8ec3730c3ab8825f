//! Calls about keys, addresses, scripts, descriptors and signatures, good and bad ones, put to groatd and to bitcoind: the
//! answers are the same, byte for byte. What one of them signs the other one takes.

use bitcoin::bip32::{Xpriv, Xpub};
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{Secp256k1, SecretKey};
use bitcoin::{NetworkKind, PrivateKey, PublicKey, ScriptBuf};
use groat_chain::mempool::Policy;
use groat_tests::bitcoind::{Bitcoind, peers};
use groat_tests::data::groat_data;
use groat_tests::groatd::repeat;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use crate::rpc::Groat;

/// Two nodes of one network, and where their answers were not the same.
struct Both {
    core: Bitcoind,
    groat: Groat,
    differences: Vec<String>,
    calls: usize,
}

impl Both {
    fn on(chain: &str) -> Option<Both> {
        let core = Bitcoind::start_in(&peers()?, tempfile::tempdir().unwrap(), chain, &[]);
        Some(Both { core, groat: Groat::on(chain, Policy::default()), differences: Vec::new(), calls: 0 })
    }

    /// Asks both; gives bitcoind's answer. Of an error that is the help the first line counts.
    fn ask(&mut self, method: &str, params: Value) -> Option<Value> {
        let shown = |answer: &Result<Value, groat_tests::bitcoind::RpcError>| match answer {
            Ok(value) => value.to_string(),
            Err(error) if error.code == -1 => {
                format!("error -1: {}", error.message.lines().next().unwrap_or_default())
            }
            Err(error) => format!("error {}: {}", error.code, error.message),
        };
        let theirs = self.core.rpc().call(method, params.clone());
        let ours = self.groat.rpc.call(method, params.clone());
        self.calls += 1;
        if shown(&ours) != shown(&theirs) {
            self.differences.push(format!(
                "{method} {params}\n  groatd:   {}\n  bitcoind: {}",
                shown(&ours),
                shown(&theirs)
            ));
        }
        theirs.ok()
    }

    fn agree(self, least: usize) {
        let count = self.differences.len();
        let some = self.differences.iter().take(25).cloned().collect::<Vec<_>>().join("\n");
        assert!(count == 0, "{count} of {} answers differ:\n{some}\n{}", self.calls, repeat());
        assert!(self.calls >= least, "{} calls were made, at least {least} expected; {}", self.calls, repeat());
    }

    /// The same blocks, each with a coinbase that pays to a descriptor.
    fn mine(&self, blocks: u32, descriptor: &str) {
        let hashes = self.core.call("generatetodescriptor", json!([blocks, descriptor]));
        for hash in hashes.as_array().unwrap() {
            let block = self.core.call("getblock", json!([hash, 0]));
            assert_eq!(self.groat.rpc.call("submitblock", json!([block])), Ok(Value::Null), "block of {descriptor}");
        }
    }
}

/// Keys that are the same in each run.
struct Ring {
    kind: NetworkKind,
    random: ChaCha8Rng,
}

impl Ring {
    fn new(kind: NetworkKind, seed: u64) -> Ring {
        Ring { kind, random: ChaCha8Rng::seed_from_u64(seed) }
    }

    fn private(&mut self, compressed: bool) -> PrivateKey {
        let inner = SecretKey::from_slice(&self.random.random::<[u8; 32]>()).unwrap();
        PrivateKey { compressed, network: self.kind, inner }
    }

    fn public(&mut self, compressed: bool) -> PublicKey {
        self.private(compressed).public_key(&Secp256k1::new())
    }

    fn extended(&mut self) -> Xpriv {
        Xpriv::new_master(self.kind, &self.random.random::<[u8; 32]>()).unwrap()
    }

    /// A key expression: mostly a good one.
    fn expression(&mut self) -> String {
        let secp = Secp256k1::new();
        let origin = match self.random.random_range(0..8) {
            0 => "[0a1b2c3d]",
            1 => "[0a1b2c3d/44h/0'/7]",
            2 => "[0A1B2C3D/1]",
            _ => "",
        };
        let path: String = (0..self.random.random_range(0..3))
            .map(|_| ["/0", "/1", "/2147483647", "/5h", "/6'", "/<0;1>", "/<2;3h;4>"].choose(&mut self.random).unwrap())
            .copied()
            .collect();
        let star = *["", "/*", "/*h", "/*'"].choose(&mut self.random).unwrap();
        let key = match self.random.random_range(0..9) {
            0 | 1 => self.public(true).to_string(),
            2 => self.public(false).to_string(),
            3 => self.public(true).inner.x_only_public_key().0.to_string(),
            4 => self.private(true).to_wif(),
            5 => self.private(false).to_wif(),
            6 | 7 => format!("{}{path}{star}", self.extended()),
            _ => format!("{}{path}{star}", Xpub::from_priv(&secp, &self.extended())),
        };
        format!("{origin}{key}")
    }

    /// A descriptor: often a good one.
    fn descriptor(&mut self, inside: &str) -> String {
        let functions: &[&str] = match inside {
            "" => &["pk", "pkh", "wpkh", "combo", "rawtr", "tr", "tree", "sh", "wsh", "multi", "sortedmulti", "mini"],
            "sh" => &["pk", "pkh", "wpkh", "wsh", "multi", "sortedmulti", "combo", "multi_a"],
            "wsh" => &["pk", "pkh", "multi", "sortedmulti", "mini", "mini", "wpkh"],
            _ => &["pk", "multi_a", "sortedmulti_a", "mini", "pkh", "multi"],
        };
        match *functions.choose(&mut self.random).unwrap() {
            name @ ("sh" | "wsh") => format!("{name}({})", self.descriptor(name)),
            name @ ("multi" | "sortedmulti" | "multi_a" | "sortedmulti_a") => {
                let count = self.random.random_range(1..5);
                let keys: String = (0..count).map(|_| format!(",{}", self.expression())).collect();
                format!("{name}({}{keys})", self.random.random_range(1..=count))
            }
            "tree" => {
                let key = self.expression();
                let leaf = |ring: &mut Ring| ring.descriptor("tr");
                let (a, b, c) = (leaf(self), leaf(self), leaf(self));
                match self.random.random_range(0..3) {
                    0 => format!("tr({key},{a})"),
                    1 => format!("tr({key},{{{a},{b}}})"),
                    _ => format!("tr({key},{{{a},{{{b},{c}}}}})"),
                }
            }
            "mini" => self.miniscript(),
            name => format!("{name}({})", self.expression()),
        }
    }

    fn miniscript(&mut self) -> String {
        let (a, b) = (self.expression(), self.expression());
        let hash = "11".repeat(32);
        match self.random.random_range(0..9) {
            0 => format!("and_v(v:pk({a}),older(5))"),
            1 => format!("or_d(pk({a}),and_v(v:pkh({b}),after(700000)))"),
            2 => format!("andor(pk({a}),older(1000),pk({b}))"),
            3 => format!("and_v(v:sha256({hash}),pk({a}))"),
            4 => format!("t:or_c(pk({a}),v:pkh({b}))"),
            5 => format!("thresh(2,pk({a}),s:pk({b}),sln:older(9))"),
            6 => format!("and_v(v:pk({a}),and_v(v:after(5),older(6)))"),
            7 => format!("or_i(pk({a}),pk({a}))"),
            _ => format!("c:or_i(pk_k({a}),pk_h({b}))"),
        }
    }

    /// With one to three letters changed, or cut off, or added.
    fn spoil(&mut self, text: &str) -> String {
        let mut letters: Vec<u8> = text.bytes().collect();
        for _ in 0..self.random.random_range(1..4) {
            let at = self.random.random_range(0..letters.len());
            match self.random.random_range(0..12) {
                0 => letters[at] = letters[at].to_ascii_uppercase(),
                1 => letters.truncate(at.max(1)),
                2 => letters.insert(at, b'q'),
                3 => letters[at] = *b"1bio )(*,'/#{}<>;[]".choose(&mut self.random).unwrap(),
                _ => letters[at] = *b"qpzry9x8gf2tvdw0s3jn54khce6mua7l".choose(&mut self.random).unwrap(),
            }
        }
        String::from_utf8(letters).unwrap()
    }
}

/// What stands under the key `input` in the vectors of descriptors.
fn vectors() -> Vec<String> {
    fn collect(value: &Value, into: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                into.extend(fields.get("input").and_then(Value::as_str).map(String::from));
                fields.values().for_each(|value| collect(value, into));
            }
            Value::Array(items) => items.iter().for_each(|value| collect(value, into)),
            _ => {}
        }
    }
    let mut inputs = Vec::new();
    for path in groat_data("vectors-descriptors", ".json") {
        collect(&serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap(), &mut inputs);
    }
    inputs
}

/// Descriptors that say one thing each, wrong ones too.
fn oddities() -> Vec<String> {
    let x = "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
    let y = "483ada7726a3c4655da4fbfc0e1108a8fd17b448a68554199c47d08ffb10d4b8";
    let (key, other) = (format!("02{x}"), format!("03{x}"));
    let mut all: Vec<String> = [
        "",
        "pk",
        "pk(",
        "pk)",
        "pk()",
        "raw()",
        "raw(5)",
        "raw(51)",
        "raw(51)#8lvh9jxk",
        "raw(51)#8lvh9jxq",
        "raw(51)#",
        "raw(51)##",
        "raw(é)",
        "addr()",
        "addr(1)",
        "sh(raw(51))",
        "sh()",
        "wsh()",
        "sh(addr(1))",
        "nothing(51)",
        "51",
        "addr(bcrt1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqdku202)",
        "addr(BCRT1QQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQDKU202)",
        "addr(1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2)",
        "addr(mipcBbFg9gMiCh81Kj8tqqdgoZub1ZJRfn)",
        "addr(bcrt1pfeesnyr2tx)",
        "multi()",
        "multi(1)",
        "multi(a)",
        "multi(+1,a)",
        "raw(51),raw(51)",
        "raw(51))",
        "wsh(older(5))",
        "tr(older(5))",
        "wsh(and_v(v:1,1))",
        "unused(51)x",
        "combo()",
        "rawtr()",
        "tr()",
    ]
    .map(String::from)
    .to_vec();
    for form in [
        "pk(K)",
        "pk( K)",
        "pk(K )",
        "pk(K/0)",
        "pk(K,K)",
        "pk(06XY)",
        "pk(04XY)",
        "pk(05X)",
        "pk(02)",
        "wpkh(04XY)",
        "sh(wpkh(04XY))",
        "wsh(pk(04XY))",
        "sh(pk(04XY))",
        "combo(04XY)",
        "combo(K)",
        "tr(X)",
        "tr(K)",
        "rawtr(X)",
        "rawtr(K,K)",
        "rawtr(K)",
        "pk(X)",
        "tr(X,pk(K))",
        "tr(X,{pk(K),pk(O)})",
        "tr(X,{pk(K),pk(O)",
        "tr(X,{pk(K)})",
        "tr(X,{pk(K),pk(O)}x)",
        "tr(Xpk(K))",
        "tr(X,multi_a(1,K,X))",
        "tr(X,multi(1,K))",
        "multi_a(1,K)",
        "sh(sh(pk(K)))",
        "wsh(wsh(pk(K)))",
        "wsh(sh(pk(K)))",
        "wsh(wpkh(K))",
        "sh(tr(X))",
        "wsh(rawtr(X))",
        "sh(combo(K))",
        "multi(0,K)",
        "multi(2,K)",
        "multi(1,K,O)",
        "multi(1,K,K,K,K)",
        "multi(4294967296,K)",
        "multi(1 ,K)",
        "multi(1,K;K)",
        "sh(wsh(multi(2,K,O)))",
        "sh(wsh(sortedmulti(2,O,K)))",
        "sortedmulti(1,O,K)",
        "sortedmulti_a(1,O,K)",
        "tr(X,sortedmulti_a(1,O,K))",
        "[01020304]K",
        "pk([01020304]K)",
        "pk([0102030]K)",
        "pk([0102030g]K)",
        "pk([01020304/]K)",
        "pk([01020304/0/]K)",
        "pk([01020304/2147483648]K)",
        "pk([01020304/2147483647h]K)",
        "pk([01020304/-1]K)",
        "pk([01020304/+1]K)",
        "pk([01020304/<0;1>]K)",
        "pk([01020304]]K)",
        "pk(01020304]K)",
        "pk(]K)",
        "pk([01020304])",
        "wsh(and_v(v:pk(K),older(5)))",
        "wsh(and_v(v:pk(K),older(0)))",
        "and_v(v:pk(K),older(5))",
        "sh(and_v(v:pk(K),older(5)))",
        "wsh(or_b(pk(K),pk(O)))",
        "wsh(and_v(pk(K),pk(O)))",
        "wsh(and_v(v:pk(K),pk(K)))",
        "wsh(or_i(and_v(v:after(5),older(4194305)),pk(K)))",
        "wsh(thresh(1,pk(K)))",
        "wsh(pk(K)",
        "wsh(pk(K)))",
        "wsh(andor(pk(K),1,0))",
        "wsh(and_v(v:hash160(H),pk(K)))",
        "wsh(and_v(v:hash160(HH),pk(K)))",
        "wsh(and_v(v:ripemd160(H),pk(K)))",
        "musig(K,O)x",
        "wsh(multi(1,K))",
        "wsh(and_v(v:multi(1,K),pk(O)))",
        "tr(X,and_v(v:multi_a(1,K),pk(O)))",
        "wsh(a:pk(K))",
        "wsh(x(K))",
        "wsh(pk_k(K))",
        "wsh(pk_h(K))",
        "wsh(c:pk_k(K))",
    ] {
        let form =
            form.replace("HH", &"ab".repeat(21)).replace('H', &"aB".repeat(20)).replace("XY", &format!("{x}{y}"));
        all.push(form.replace('K', &key).replace('O', &other).replace('X', x));
    }
    let many = |count| format!(",{key}").repeat(count);
    all.extend([15, 16, 20, 21].map(|count| format!("sh(multi(1{}))", many(count))));
    all.extend([20, 21].map(|count| format!("wsh(multi(1{}))", many(count))));
    all.extend([999, 1000].map(|count| format!("tr({x},multi_a(1{}))", many(count))));
    all.extend(
        [128, 129]
            .map(|depth| format!("tr({x},{}pk({key}){})", "{".repeat(depth), format!(",pk({key})}}").repeat(depth))),
    );
    all
}

/// All that both say of a descriptor.
fn ask_of_descriptor(both: &mut Both, text: &str) {
    let info = both.ask("getdescriptorinfo", json!([text]));
    both.ask("deriveaddresses", json!([text]));
    let Some(info) = info else { return };
    let whole = format!("{}#{}", text.split('#').next().unwrap(), info["checksum"].as_str().unwrap());
    both.ask("deriveaddresses", json!([whole]));
    both.ask("deriveaddresses", json!([whole, [3, 5]]));
    both.ask("deriveaddresses", json!([info["descriptor"], 1]));
}

#[test]
fn descriptors_are_read_and_derived_as_by_bitcoind() {
    for (chain, kind) in [("regtest", NetworkKind::Test), ("main", NetworkKind::Main)] {
        let Some(mut both) = Both::on(chain) else { return };
        for text in vectors().iter().chain(&oddities()) {
            ask_of_descriptor(&mut both, text);
        }
        let mut ring = Ring::new(kind, 1);
        for _ in 0..300 {
            let descriptor = ring.descriptor("");
            ask_of_descriptor(&mut both, &descriptor);
            let spoiled = ring.spoil(&descriptor);
            // Of what can be read as no miniscript Core tells the first bad key, groatd does not.
            if !["v:", "older", "or_", "thresh"].iter().any(|word| descriptor.contains(word)) {
                both.ask("getdescriptorinfo", json!([spoiled]));
            }
        }
        let ranged = format!("wpkh({}/*)#", Xpub::from_priv(&Secp256k1::new(), &ring.extended()));
        let ranged = both.core.call("getdescriptorinfo", json!([ranged.trim_end_matches('#')]))["descriptor"].clone();
        for range in [
            json!(-1),
            json!(0),
            json!([5, 4]),
            json!([-1, 4]),
            json!([0, 2147483648_u64]),
            json!([0, 1000000]),
            json!([1]),
            json!("2"),
            json!([0, "1"]),
            json!(1.5),
            json!([2147483647, 2147483647]),
            json!({}),
            json!(true),
            Value::Null,
            json!(99999999999_u64),
            json!([3000000000_u64, 3000000000_u64]),
        ] {
            both.ask("deriveaddresses", json!([ranged, range]));
        }
        for params in [json!([]), json!([1]), json!([ranged, 1, 2])] {
            both.ask("deriveaddresses", params.clone());
            both.ask("getdescriptorinfo", params);
        }
        both.agree(1500);
    }
}

#[test]
fn addresses_and_their_typing_errors_are_judged_as_by_bitcoind() {
    for (chain, hrp) in [("regtest", "bcrt"), ("main", "bc"), ("testnet4", "tb")] {
        let Some(mut both) = Both::on(chain) else { return };
        let mut ring = Ring::new(NetworkKind::Main, 2);
        // Lawful or not.
        let program = |version: u8, bytes: &[u8]| {
            let (mut text, version) = (String::new(), bitcoin::bech32::Fe32::try_from(version).unwrap());
            let hrp = bitcoin::bech32::Hrp::parse(hrp).unwrap();
            bitcoin::bech32::segwit::encode_lower_to_fmt_unchecked(&mut text, hrp, version, bytes).map(|()| text)
        };
        let mut addresses: Vec<String> = vec![
            "".into(),
            " ".into(),
            "1".into(),
            hrp.into(),
            format!("{hrp}1"),
            format!("{hrp}1qqqqqq"),
            "é".into(),
            "bc1é".into(),
            format!("{hrp}1é"),
            "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2".into(),
            "3J98t1WpEZ73CNmQviecrnyiWrnqRhWNLy".into(),
            "mipcBbFg9gMiCh81Kj8tqqdgoZub1ZJRfn".into(),
            "2MzQwSSnBHWHqSAqtTVQ6v47XtaisrJa1Vc".into(),
            " mipcBbFg9gMiCh81Kj8tqqdgoZub1ZJRfn ".into(),
            "L4rK1yDtCWekvXuE6oXD9jCYfFNV2cWRpVuPLBcCU2z8TrisoyY1".into(),
            "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4".into(),
            "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx".into(),
            "bcrt1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqdku202".into(),
            "1".repeat(30),
            "1".repeat(120),
            "z".repeat(120),
            format!("{hrp}1{}", "q".repeat(90)),
        ];
        for (payload, length) in [(0, 21), (111, 21), (5, 21), (196, 21), (0, 20), (111, 22), (196, 19), (9, 21)] {
            addresses.push(bitcoin::base58::encode_check(&[&[payload], &vec![7; length - 1][..]].concat()));
        }
        for (version, length) in [
            (0, 20),
            (0, 32),
            (0, 21),
            (0, 1),
            (1, 32),
            (1, 2),
            (1, 20),
            (2, 2),
            (16, 40),
            (17, 20),
            (31, 32),
            (2, 1),
            (3, 41),
        ] {
            addresses.extend(program(version, &vec![9; length]));
        }
        addresses.extend(program(1, &[0x4e, 0x73]));
        for address in addresses.clone() {
            both.ask("validateaddress", json!([address]));
            both.ask("validateaddress", json!([address.to_uppercase()]));
            for _ in 0..if address.is_ascii() && !address.is_empty() { 12 } else { 0 } {
                let spoiled = ring.spoil(&address);
                both.ask("validateaddress", json!([spoiled]));
            }
        }
        for params in [json!([]), json!([1]), json!(["a", "b"])] {
            both.ask("validateaddress", params);
        }
        both.agree(400);
    }
}

#[test]
fn scripts_are_decoded_and_shared_as_by_bitcoind() {
    let Some(mut both) = Both::on("regtest") else { return };
    let mut ring = Ring::new(NetworkKind::Test, 3);
    let mut scripts: Vec<String> = vec![
        "".into(),
        "5".into(),
        "xx".into(),
        "51".into(),
        "6a".into(),
        "6a0102".into(),
        "4c".into(),
        "ba".into(),
        "50".into(),
        "7e".into(),
        "bb".into(),
        "ff".into(),
        "51024e73".into(),
        "5102aabb".into(),
        "ac".into(),
        "87".into(),
        "a9".into(),
        format!("4d0902{}", "00".repeat(521)),
        format!("4d0802{}75", "00".repeat(520)),
        format!("5120{}", "ff".repeat(32)),
        format!("5120{}", "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"),
        "51".repeat(10_001),
    ];
    for _ in 0..12 {
        let (key, long) = (ring.public(true), ring.public(false));
        scripts.extend([ScriptBuf::new_p2pk(&key), ScriptBuf::new_p2pk(&long)].map(|script| script.to_hex_string()));
        scripts.push(ScriptBuf::new_p2pkh(&key.pubkey_hash()).to_hex_string());
        scripts.push(ScriptBuf::new_p2wpkh(&key.wpubkey_hash().unwrap()).to_hex_string());
        scripts.push(ScriptBuf::new_p2sh(&Hash::hash(b"any")).to_hex_string());
        scripts.push(ScriptBuf::new_p2wsh(&Hash::hash(b"any")).to_hex_string());
        let mixed = [key, long, ring.public(true)];
        for keys in [&mixed[..1], &mixed[..2], &[mixed[0], mixed[2]][..]] {
            let keys: String = keys.iter().map(|key| format!("{:02x}{key}", key.to_bytes().len())).collect();
            scripts.extend([1, 2].map(|count| format!("51{keys}{:02x}ae", 0x50 + count)));
        }
        // What a miniscript says; and anything at all.
        let (a, b) = (ring.public(true), ring.public(true));
        for text in [
            format!("and_v(v:pk({a}),older(5))"),
            format!("or_d(pk({a}),and_v(v:pk({b}),after(700000)))"),
            format!("andor(pk({a}),older(1000),pk({b}))"),
            format!("and_v(v:pkh({a}),pk({b}))"),
            format!("or_i(pk({a}),pk({a}))"),
            format!("multi(2,{a},{b})"),
        ] {
            let whole = miniscript::Miniscript::<PublicKey, miniscript::Segwitv0>::from_str_insane(&text).unwrap();
            scripts.push(whole.encode().to_hex_string());
        }
        let length = ring.random.random_range(1..40);
        let bytes: Vec<u8> = (0..length).map(|_| ring.random.random()).collect();
        scripts.push(ScriptBuf::from(bytes).to_hex_string());
    }
    for script in &scripts {
        both.ask("decodescript", json!([script]));
    }
    let keys = |ring: &mut Ring, count: usize, compressed: bool| {
        json!((0..count).map(|_| ring.public(compressed).to_string()).collect::<Vec<_>>())
    };
    for (required, count) in [(1, 1), (2, 3), (0, 1), (-1, 1), (2, 1), (1, 15), (1, 16), (16, 20), (1, 21), (1, 0)] {
        for kind in [Value::Null, json!("legacy"), json!("p2sh-segwit"), json!("bech32"), json!("bech32m"), json!("x")]
        {
            for compressed in [true, false] {
                let keys = keys(&mut ring, count, compressed);
                both.ask("createmultisig", json!([required, keys, kind]));
            }
        }
    }
    let key = ring.public(true).to_string();
    for bad in [
        json!(["xx"]),
        json!([""]),
        json!([1]),
        json!(["02"]),
        json!([format!("05{}", &key[2..])]),
        json!([ring.spoil(&key)]),
    ] {
        both.ask("createmultisig", json!([1, bad]));
    }
    for params in [json!([]), json!([1]), json!(["1", []]), json!([1, "x"]), json!([1, [key], 3]), json!([1.5, [key]])]
    {
        both.ask("createmultisig", params.clone());
        both.ask("decodescript", params);
    }
    both.agree(300);
}

#[test]
fn messages_are_signed_and_verified_as_by_bitcoind() {
    let Some(mut both) = Both::on("regtest") else { return };
    let mut ring = Ring::new(NetworkKind::Test, 4);
    for message in ["", "hello", "é ☃ 𝄞", &"long".repeat(1000), "Bitcoin Signed Message:\n"] {
        for compressed in [true, false] {
            let secret = ring.private(compressed);
            let key = secret.public_key(&Secp256k1::new());
            let address = bitcoin::Address::p2pkh(key, NetworkKind::Test).to_string();
            let signature = both.ask("signmessagewithprivkey", json!([secret.to_wif(), message])).unwrap();
            let signature = signature.as_str().unwrap().to_string();
            assert_eq!(both.ask("verifymessage", json!([address, signature, message])), Some(json!(true)));
            assert_eq!(both.ask("verifymessage", json!([address, signature, "other"])), Some(json!(false)));
            for _ in 0..10 {
                let spoiled = ring.spoil(&signature);
                both.ask("verifymessage", json!([address, spoiled, message]));
                let spoiled = ring.spoil(&secret.to_wif());
                both.ask("signmessagewithprivkey", json!([spoiled, message]));
            }
        }
    }
    for address in ["x", "bcrt1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqdku202", "2MzQwSSnBHWHqSAqtTVQ6v47XtaisrJa1Vc"] {
        both.ask("verifymessage", json!([address, "AAAA", "m"]));
    }
    for signature in ["", "=", "AAAA", "AAA=", "AA==", "AB==", "A===", "AAA", "AA=A", "A A="] {
        both.ask("verifymessage", json!(["mipcBbFg9gMiCh81Kj8tqqdgoZub1ZJRfn", signature, "m"]));
    }
    for params in [json!([]), json!([1, 2]), json!([1, 2, 3])] {
        both.ask("verifymessage", params.clone());
        both.ask("signmessagewithprivkey", params);
    }
    both.agree(200);
}

#[test]
fn scans_find_the_same_coins_as_those_of_bitcoind() {
    let Some(mut both) = Both::on("regtest") else { return };
    let mut ring = Ring::new(NetworkKind::Test, 5);
    let mut objects = Vec::new();
    while objects.len() < 60 {
        let descriptor = ring.descriptor("");
        let Ok(info) = both.core.rpc().call("getdescriptorinfo", json!([descriptor])) else { continue };
        let fixed = info["isrange"] == json!(false) && info.get("multipath_expansion").is_none();
        if fixed && both.core.rpc().call("generatetodescriptor", json!([0, descriptor])).is_ok() {
            both.mine(1 + objects.len() as u32 % 2, &descriptor);
            objects.push(json!(descriptor));
            continue;
        }
        let whole = format!("{descriptor}#{}", info["checksum"].as_str().unwrap());
        if let Ok(addresses) = both.core.rpc().call("deriveaddresses", json!([whole, [0, 7]])) {
            let first = if info.get("multipath_expansion").is_some() { &addresses[1] } else { &addresses };
            for address in first.as_array().unwrap().iter().take(3) {
                both.mine(1, &format!("addr({})", address.as_str().unwrap()));
            }
            objects.push(json!({"desc": descriptor, "range": 7}));
            objects.push(json!({"desc": descriptor, "range": [1, 2]}));
        }
    }
    let key = ring.public(true);
    let combo = json!(format!("combo({key})"));
    for kind in ["pk", "pkh", "wpkh", "combo"] {
        both.mine(1, &format!("{kind}({key})"));
    }
    let bare = ScriptBuf::new_p2pk(&key).to_hex_string();
    objects.extend([
        combo,
        json!(format!("raw({bare})")),
        json!("raw(51)"),
        json!("raw(51)#8lvh9jxk"),
        json!("raw(51)#8lvh9jxq"),
    ]);
    for object in &objects {
        both.ask("scantxoutset", json!(["start", [object]]));
    }
    both.ask("scantxoutset", json!(["start", objects[..objects.len() - 1]]));
    let hardened = format!("pkh({}/0h/*)", Xpub::from_priv(&Secp256k1::new(), &ring.extended()));
    for bad in [
        json!(["start"]),
        json!(["start", null]),
        json!(["start", {}]),
        json!(["start", []]),
        json!(["start", [1]]),
        json!(["start", [{}]]),
        json!(["start", [{"desc": 1}]]),
        json!(["start", [{"desc": "raw(51)", "range": "x"}]]),
        json!(["start", [hardened]]),
        json!(["status"]),
        json!(["abort"]),
        json!(["other"]),
        json!([]),
        json!([1]),
        json!(["status", [], 1]),
        json!(["start", ["x"]]),
    ] {
        both.ask("scantxoutset", bad);
    }
    both.agree(80);
}

/// An output script with the keys that spend it and the scripts that a signer has to be told.
struct Spend {
    descriptor: String,
    keys: Vec<PrivateKey>,
    redeem: Option<ScriptBuf>,
    witness: Option<ScriptBuf>,
    sequence: u32,
}

/// Outputs of every kind that a key signs for, and some that none does.
fn spends(ring: &mut Ring) -> Vec<Spend> {
    let secp = Secp256k1::new();
    let mut all = Vec::new();
    let mut add = |descriptor: String, keys: &[PrivateKey], redeem: Option<ScriptBuf>, witness: Option<ScriptBuf>| {
        let sequence = if descriptor.contains("older") { 5 } else { 0xffff_fffd };
        all.push(Spend { descriptor, keys: keys.to_vec(), redeem, witness, sequence });
    };
    for compressed in [true, false] {
        let key = ring.private(compressed);
        let public = key.public_key(&secp);
        add(format!("pk({public})"), &[key], None, None);
        add(format!("pkh({public})"), &[key], None, None);
        add(format!("sh(pk({public}))"), &[key], Some(ScriptBuf::new_p2pk(&public)), None);
        add(format!("sh(pkh({public}))"), &[key], Some(ScriptBuf::new_p2pkh(&public.pubkey_hash())), None);
    }
    let keys: Vec<PrivateKey> = (0..3).map(|_| ring.private(true)).collect();
    let publics: Vec<PublicKey> = keys.iter().map(|key| key.public_key(&secp)).collect();
    let (key, public) = (keys[0], publics[0]);
    let witness_program = ScriptBuf::new_p2wpkh(&public.wpubkey_hash().unwrap());
    add(format!("wpkh({public})"), &[key], None, None);
    add(format!("sh(wpkh({public}))"), &[key], Some(witness_program), None);
    add(format!("rawtr({})", public.inner.x_only_public_key().0), &[key], None, None);
    add(format!("tr({public})"), &[key], None, None);
    let x_only = publics.iter().map(|key| format!(",{key}")).collect::<String>();
    let multi = bitcoin::script::Builder::new().push_int(2);
    let multi = publics.iter().fold(multi, |script, key| script.push_key(key));
    let multi = multi.push_int(3).push_opcode(bitcoin::opcodes::all::OP_CHECKMULTISIG).into_script();
    add(format!("multi(2{x_only})"), &keys, None, None);
    add(format!("sh(multi(2{x_only}))"), &keys, Some(multi.clone()), None);
    add(format!("wsh(multi(2{x_only}))"), &keys, None, Some(multi.clone()));
    add(format!("sh(wsh(multi(2{x_only})))"), &keys, Some(multi.to_p2wsh()), Some(multi));
    let (one, two) = (ScriptBuf::new_p2pk(&public), ScriptBuf::new_p2pkh(&public.pubkey_hash()));
    add(format!("wsh(pk({public}))"), &[key], None, Some(one));
    add(format!("sh(wsh(pkh({public})))"), &[key], None, Some(two));
    for text in [
        format!("and_v(v:pk({}),older(5))", publics[0]),
        format!("or_d(pk({}),and_v(v:pkh({}),older(5)))", publics[1], publics[0]),
        format!("andor(pk({}),older(5),pk({}))", publics[0], publics[2]),
        format!("thresh(3,pk({}),s:pk({}),s:pk({}))", publics[0], publics[1], publics[2]),
    ] {
        let whole = miniscript::Miniscript::<PublicKey, miniscript::Segwitv0>::from_str_insane(&text).unwrap();
        add(format!("wsh({text})"), &keys, None, Some(whole.encode()));
    }
    add("addr(bcrt1pfeesnyr2tx)".into(), &[], None, None);
    add("raw(51)".into(), &[], None, None);
    add("raw(6002aabb)".into(), &[], None, None);
    all
}

const SIGHASHES: [&str; 7] =
    ["DEFAULT", "ALL", "NONE", "SINGLE", "ALL|ANYONECANPAY", "NONE|ANYONECANPAY", "SINGLE|ANYONECANPAY"];

#[test]
fn what_one_node_signs_the_other_takes() {
    let Some(mut both) = Both::on("regtest") else { return };
    let mut ring = Ring::new(NetworkKind::Test, 6);
    let spends = spends(&mut ring);
    for spend in &spends {
        both.mine(1, &spend.descriptor);
    }
    both.mine(101, "raw(51)");
    let coin = |both: &Both, height: usize| {
        let hash = both.core.call("getblockhash", json!([height + 1]));
        let tx = both.core.call("getblock", json!([hash, 2]))["tx"][0].clone();
        (tx["txid"].clone(), tx["vout"][0].clone())
    };
    let to = "bcrt1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqdku202";
    let wif = |keys: &[PrivateKey]| json!(keys.iter().map(|key| key.to_wif()).collect::<Vec<_>>());
    let mut accepted = 0;
    for (height, spend) in spends.iter().enumerate() {
        let (txid, output) = coin(&both, height);
        let input = json!([{"txid": txid, "vout": 0, "sequence": spend.sequence}]);
        let tx = both.ask("createrawtransaction", json!([input, [{to: 49.99}], 0, null, 2])).unwrap();
        let mut told =
            json!({"txid": txid, "vout": 0, "scriptPubKey": output["scriptPubKey"]["hex"], "amount": output["value"]});
        let scripts = [("redeemScript", &spend.redeem), ("witnessScript", &spend.witness)];
        for (name, script) in scripts {
            if let Some(script) = script {
                told[name] = json!(script.to_hex_string());
            }
        }
        for sighash in SIGHASHES {
            let params = json!([tx, wif(&spend.keys), [told], sighash]);
            let Some(signed) = both.ask("signrawtransactionwithkey", params) else { continue };
            let verdict = both.ask("testmempoolaccept", json!([[signed["hex"]], 0])).unwrap();
            accepted += usize::from(verdict[0]["allowed"] == json!(true));
            // What is signed stays so, whoever signs it once more.
            both.ask("signrawtransactionwithkey", json!([signed["hex"], [], [told], sighash]));
            both.ask("signrawtransactionwithkey", json!([signed["hex"], [ring.private(true).to_wif()]]));
        }
        // Signed in parts, and joined. Of hashes of keys that nobody names groatd makes more than Core.
        let parts: Vec<Value> = spend
            .keys
            .iter()
            .filter(|_| !spend.descriptor.contains("or_d"))
            .filter_map(|key| both.ask("signrawtransactionwithkey", json!([tx, wif(&[*key]), [told]])))
            .map(|signed| signed["hex"].clone())
            .collect();
        for pair in parts.windows(2) {
            let joined = both.ask("combinerawtransaction", json!([pair])).unwrap();
            both.ask("testmempoolaccept", json!([[joined], 0]));
        }
        both.ask("combinerawtransaction", json!([[tx, tx]]));
        for field in ["amount", "scriptPubKey", "redeemScript", "witnessScript", "txid", "vout"] {
            for wrong in [Value::Null, json!(1), json!("00"), json!(""), json!("x"), json!({})] {
                let mut told = told.clone();
                told[field] = wrong;
                both.ask("signrawtransactionwithkey", json!([tx, wif(&spend.keys), [told]]));
            }
            let mut told = told.clone();
            told.as_object_mut().unwrap().remove(field);
            both.ask("signrawtransactionwithkey", json!([tx, wif(&spend.keys), [told]]));
        }
    }
    // Many inputs at once, one of them unknown; two outputs, so that SINGLE lacks some.
    let inputs: Vec<Value> =
        (0..spends.len()).map(|height| json!({"txid": coin(&both, height).0, "vout": 0})).collect();
    let keys: Vec<PrivateKey> = spends.iter().flat_map(|spend| spend.keys.clone()).collect();
    let unknown = json!({"txid": "11".repeat(32), "vout": 7});
    for inputs in [inputs.clone(), [&inputs[..], &[unknown]].concat()] {
        let tx = both.ask("createrawtransaction", json!([inputs, [{to: 1}, {"data": "00"}]])).unwrap();
        for sighash in SIGHASHES {
            both.ask("signrawtransactionwithkey", json!([tx, wif(&keys), null, sighash]));
        }
        both.ask("combinerawtransaction", json!([[tx, tx]]));
    }
    for params in [
        json!([]),
        json!(["00", []]),
        json!(["x", []]),
        json!(["", []]),
        json!([1, []]),
        json!(["00", ["x"]]),
        json!(["00", [1]]),
        json!(["00", null]),
    ] {
        both.ask("signrawtransactionwithkey", params.clone());
        both.ask("combinerawtransaction", params);
    }
    let tx = both.ask("createrawtransaction", json!([[inputs[0]], [{to: 1}]])).unwrap();
    let other = both.ask("createrawtransaction", json!([[inputs[1]], [{to: 1}]])).unwrap();
    for txs in [json!([]), json!([tx]), json!([tx, other]), json!([tx, "x"]), json!([tx, 1])] {
        both.ask("combinerawtransaction", json!([txs]));
    }
    for rest in
        [json!([["x"]]), json!([[1]]), json!([[], [1]]), json!([[], "x"]), json!([[], [], "MOST"]), json!([[], [], 1])]
    {
        let params = [&[tx.clone()][..], rest.as_array().unwrap()].concat();
        both.ask("signrawtransactionwithkey", json!(params));
    }
    let single = spends.iter().filter(|spend| !spend.keys.is_empty()).count();
    assert!(accepted >= 6 * (single - 2), "{accepted} signed transactions were accepted; {}", repeat());
    both.agree(1000);
}

#[test]
fn raw_transactions_are_made_as_by_bitcoind() {
    let Some(mut both) = Both::on("regtest") else { return };
    let (a, b) = ("bcrt1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqdku202", "mipcBbFg9gMiCh81Kj8tqqdgoZub1ZJRfn");
    let input = json!({"txid": "11".repeat(32), "vout": 0});
    let with = |name: &str, value: Value| {
        let mut input = input.clone();
        input[name] = value;
        json!([input])
    };
    let outputs = json!([{a: 1}]);
    let mut inputs = vec![
        json!([]),
        Value::Null,
        json!([1]),
        json!(["x"]),
        json!({}),
        json!([{}]),
        json!([null]),
        json!([input, input]),
    ];
    for value in [
        json!(0),
        json!(-1),
        json!(4294967295_u64),
        json!(4294967296_u64),
        json!("1"),
        json!(1.5),
        Value::Null,
        json!(2147483648_u64),
    ] {
        inputs.push(with("vout", value.clone()));
        inputs.push(with("sequence", value));
    }
    inputs.extend(
        [json!("x"), json!(1), Value::Null, json!("11".repeat(31)), json!("xx".repeat(32))]
            .map(|txid| with("txid", txid)),
    );
    for inputs in &inputs {
        both.ask("createrawtransaction", json!([inputs, outputs]));
        both.ask("createrawtransaction", json!([inputs, outputs, 5, true]));
        both.ask("createrawtransaction", json!([inputs, outputs, 5, false]));
    }
    for outputs in [
        json!([]),
        json!({}),
        Value::Null,
        json!(1),
        json!("x"),
        json!({a: 1, b: "2.5"}),
        json!([{a: 1, b: 2}]),
        json!([{a: 1}, {a: 2}]),
        json!([{a: 1}, {b: 0}]),
        json!([{"data": "00"}]),
        json!([{"data": "0"}]),
        json!([{"data": ""}]),
        json!([{"data": 12}]),
        json!([{"data": "00"}, {"data": "01"}]),
        json!([1]),
        json!([{}]),
        json!([{"data": "ab".repeat(76)}]),
        json!([{"data": "ab".repeat(300)}]),
        json!([{"data": "01"}]),
        json!([{"data": "10"}]),
        json!([{"data": "81"}]),
        json!([{"x": 1}]),
        json!([{a: -1}]),
        json!([{a: "x"}]),
        json!([{a: 21000001}]),
        json!([{a: 0.000000001}]),
        json!([{a: null}]),
        json!([{a: "1e-3"}]),
        json!([{a: true}]),
        json!([{"x": "y"}]),
        json!([{"data": null}]),
        json!([{"data": true}]),
        json!([{"data": ["00"]}]),
        json!({"data": "00", a: 1}),
        json!([null]),
    ] {
        both.ask("createrawtransaction", json!([[input], outputs]));
    }
    for lock_time in [
        json!(0),
        json!(1),
        json!(4294967295_u64),
        json!(4294967296_u64),
        json!(-1),
        json!("1"),
        json!(1.5),
        Value::Null,
    ] {
        for replaceable in [Value::Null, json!(true), json!(false), json!(1)] {
            both.ask("createrawtransaction", json!([[input], outputs, lock_time, replaceable]));
            both.ask(
                "createrawtransaction",
                json!([with("sequence", json!(4294967295_u64)), outputs, lock_time, replaceable]),
            );
        }
    }
    for version in
        [json!(0), json!(1), json!(2), json!(3), json!(4), json!(-1), json!("2"), json!(4294967296_u64), Value::Null]
    {
        both.ask("createrawtransaction", json!([[input], outputs, 0, true, version]));
    }
    for params in [json!([]), json!([[]]), json!([[], [], 0, true, 2, 1])] {
        both.ask("createrawtransaction", params);
    }
    both.agree(150);
}

#[test]
fn blank_psbts_are_made_as_by_bitcoind() {
    let Some(mut both) = Both::on("regtest") else { return };
    let to = "bcrt1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqdku202";
    let input = |vout: u32| json!({"txid": "11".repeat(32), "vout": vout, "sequence": vout + 7});
    for inputs in [json!([]), json!([input(0)]), json!([input(1), input(2)])] {
        for outputs in [json!([]), json!([{to: 1}]), json!([{to: 0.1}, {"data": "0102"}])] {
            for version in [Value::Null, json!(0), json!(2), json!(1), json!(-1), json!("2")] {
                both.ask("createpsbt", json!([inputs, outputs, 5, true, 3, version]));
                let tx = both.ask("createrawtransaction", json!([inputs, outputs]));
                both.ask("converttopsbt", json!([tx, false, null, version]));
                both.ask("converttopsbt", json!([tx, true, false, version]));
            }
        }
    }
    let signed =
        "02000000000101".to_string() + &"11".repeat(32) + "0000000000fdffffff01000000000000000000010151" + "00000000";
    for params in [
        json!([signed]),
        json!([signed, true]),
        json!([signed, true, false]),
        json!([]),
        json!(["x"]),
        json!([1]),
        json!([signed, 1]),
    ] {
        both.ask("converttopsbt", params);
    }
    both.agree(100);
}
