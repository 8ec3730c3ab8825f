//! Makes spends of every kind, really signed, for tests to verify or to spoil. Draws everything from the generator it
//! is given; judges nothing.

use bitcoin::hashes::{Hash, hash160, sha256, sha256d};
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness, absolute, transaction};
use groat_chain::coins::Coin;
use groat_chain::script::opcode::*;
use groat_chain::script::sighash::{SIGHASH_DEFAULT, Sighashes};
use groat_chain::script::{TapLeaf, TaprootSpend, taproot};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use secp256k1::{All, Keypair, Message, Secp256k1, SecretKey};

use crate::asm::{push, push_number};

/// A transaction, what it spends, and the input that the case is about.
#[derive(Clone, Debug)]
pub struct Spend {
    /// The spending transaction.
    pub transaction: Transaction,
    /// What its inputs spend, in input order.
    pub coins: Vec<Coin>,
    /// The signed input.
    pub index: usize,
}

impl Spend {
    /// Gives the coin of the signed input another script.
    fn lock(&mut self, script: &[u8]) {
        let coin = &mut self.coins[self.index];
        *coin = Coin::from_parts(coin.value().to_sat(), script, 0, false);
    }
}

/// How a script is put into an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrap {
    Bare,
    P2sh,
    P2wsh,
    P2shP2wsh,
    Leaf,
}

impl Wrap {
    fn is_witness_v0(self) -> bool {
        matches!(self, Wrap::P2wsh | Wrap::P2shP2wsh)
    }
}

/// What unlocks a script, from the bottom of the stack to its top.
#[derive(Clone, Debug)]
enum Unlock {
    Data(Vec<u8>),
    /// A signature of a key over the code behind byte `start`, `separator` being the operation there.
    Signature {
        key: usize,
        start: usize,
        separator: u32,
    },
}

fn signature(key: usize) -> Unlock {
    Unlock::Signature { key, start: 0, separator: u32::MAX }
}

/// Makes spends from a fixed set of keys.
pub struct Maker {
    secp: Secp256k1<All>,
    keys: Vec<Keypair>,
}

impl Default for Maker {
    fn default() -> Maker {
        let secp = Secp256k1::new();
        let secret = |byte| SecretKey::from_slice(&[byte; 32]).expect("below the group order");
        let keys = (1..=5).map(|byte| Keypair::from_secret_key(&secp, &secret(byte))).collect();
        Maker { secp, keys }
    }
}

impl Maker {
    /// A spend of a random kind. Most are valid under all consensus flags; some lack only a detail.
    pub fn spend(&self, random: &mut ChaCha8Rng) -> Spend {
        let mut spend = unsigned(random);
        self.fill(&mut spend, random);
        spend
    }

    /// Chooses the script of the coin that the signed input spends, and signs. The rest of the spend is given, and
    /// what is drawn does not depend on it: with the same draws an outpoint that is known only later gets the same coin.
    pub fn fill(&self, spend: &mut Spend, random: &mut ChaCha8Rng) {
        match random.random_range(0..10) {
            0 => self.witness_key_hash(spend, random),
            1 => self.taproot_key_path(spend, random),
            2 => self.signature_in_script(spend, random),
            3 if random.random_ratio(1, 4) => unknown_program(spend, random),
            _ => {
                let wraps = [Wrap::Bare, Wrap::P2sh, Wrap::P2wsh, Wrap::P2shP2wsh, Wrap::Leaf, Wrap::Leaf];
                let wrap = wraps[random.random_range(0..wraps.len())];
                let (script, unlock) = self.script(wrap, random);
                self.wrap(spend, wrap, script, &unlock, random);
            }
        }
    }

    /// A key as scripts hold it: mostly compressed, in old scripts also uncompressed or hybrid.
    fn key(&self, at: usize, wrap: Wrap, random: &mut ChaCha8Rng) -> Vec<u8> {
        let key = self.keys[at].public_key();
        if wrap == Wrap::Leaf {
            return self.keys[at].x_only_public_key().0.serialize().to_vec();
        }
        match random.random_range(0..8) {
            0 => key.serialize_uncompressed().to_vec(),
            1 => {
                let mut hybrid = key.serialize_uncompressed();
                hybrid[0] = 6 | hybrid[64] & 1;
                hybrid.to_vec()
            }
            _ => key.serialize().to_vec(),
        }
    }

    /// A script and what unlocks it.
    fn script(&self, wrap: Wrap, random: &mut ChaCha8Rng) -> (Vec<u8>, Vec<Unlock>) {
        let mut script = Vec::new();
        let (one, two) = (random.random_range(0..self.keys.len()), random.random_range(0..self.keys.len()));
        let key = |at, random: &mut ChaCha8Rng| self.key(at, wrap, random);
        let (first, second) = (key(one, random), key(two, random));
        let mut unlock = match random.random_range(0..12) {
            0 => {
                push(&mut script, &first);
                script.push(OP_CHECKSIG);
                vec![signature(one)]
            }
            1 => {
                script.extend([OP_DUP, OP_HASH160]);
                push(&mut script, hash160::Hash::hash(&first).as_byte_array());
                script.extend([OP_EQUALVERIFY, OP_CHECKSIG]);
                vec![signature(one), Unlock::Data(first)]
            }
            2 | 3 => self.multisig(&mut script, wrap, random),
            4 => {
                // The second signature covers only what follows the separator.
                push(&mut script, &first);
                script.extend([OP_CHECKSIGVERIFY, OP_CODESEPARATOR]);
                let start = script.len();
                push(&mut script, &second);
                script.push(OP_CHECKSIG);
                vec![Unlock::Signature { key: two, start, separator: 2 }, signature(one)]
            }
            5 => {
                let taken = random.random();
                let numbers = [0, 100, 500_000_000, 500_000_100, -1];
                script.push(OP_IF);
                push(&mut script, &first);
                script.extend([OP_CHECKSIG, OP_ELSE]);
                push_number(&mut script, numbers[random.random_range(0..numbers.len())]);
                script.extend([OP_CHECKLOCKTIMEVERIFY, OP_DROP]);
                push(&mut script, &second);
                script.extend([OP_CHECKSIG, OP_ENDIF]);
                vec![signature(if taken { one } else { two }), Unlock::Data(if taken { vec![1] } else { vec![] })]
            }
            6 => {
                let numbers = [0, 5, 10, 1 << 22, (1 << 22) + 5, 1 << 31, (1 << 32) + 5];
                push_number(&mut script, numbers[random.random_range(0..numbers.len())]);
                script.extend([OP_CHECKSEQUENCEVERIFY, OP_DROP]);
                push(&mut script, &first);
                script.push(OP_CHECKSIG);
                vec![signature(one)]
            }
            7 => {
                // A signature that must be invalid.
                push(&mut script, &first);
                script.extend([OP_CHECKSIG, OP_NOT]);
                vec![match random.random_range(0..3) {
                    0 => signature(two),
                    1 => Unlock::Data(vec![]),
                    _ => {
                        // In shape a signature, about as long as one may be.
                        let mut integer = || vec![1; random.random_range(30..37)];
                        Unlock::Data([der(&integer(), &integer(), None), vec![1]].concat())
                    }
                }]
            }
            8 => {
                let secret = bytes(random, 50);
                script.push(OP_HASH256);
                push(&mut script, sha256d::Hash::hash(&secret).as_byte_array());
                script.push(OP_EQUALVERIFY);
                push(&mut script, &first);
                // In a leaf, each check must be paid for by the weight of the witness.
                let checks = if wrap == Wrap::Leaf { 4..8 } else { 0..9 };
                script.extend([OP_2DUP, OP_CHECKSIGVERIFY].repeat(random.random_range(checks)));
                script.push(OP_CHECKSIG);
                vec![signature(one), Unlock::Data(secret)]
            }
            9 => {
                // A separator that is not executed does not count, but stands in the code.
                script.extend([OP_0, OP_IF, OP_CODESEPARATOR, OP_ENDIF, OP_NOP]);
                push(&mut script, &first);
                script.push(OP_CHECKSIG);
                vec![signature(one)]
            }
            _ => soup(&mut script, random),
        };
        match random.random_range(0..24) {
            0..=3 => spoil_script(&mut script, random),
            4 => stretch(&mut script, random),
            _ => {}
        }
        if random.random_ratio(1, 30) && !unlock.is_empty() {
            unlock.remove(random.random_range(0..unlock.len()));
        }
        (script, unlock)
    }

    /// Some of several keys: CHECKMULTISIG, or CHECKSIGADD in a leaf.
    fn multisig(&self, script: &mut Vec<u8>, wrap: Wrap, random: &mut ChaCha8Rng) -> Vec<Unlock> {
        let count = random.random_range(1..=self.keys.len());
        let needed = random.random_range(0..=count);
        let mut signers: Vec<usize> = (0..count).collect();
        while signers.len() > needed {
            signers.remove(random.random_range(0..signers.len()));
        }
        if wrap == Wrap::Leaf {
            for at in 0..count {
                push(script, &self.key(at, wrap, random));
                script.push(if at == 0 { OP_CHECKSIG } else { OP_CHECKSIGADD });
            }
            push_number(script, needed as i64);
            script.push(OP_NUMEQUAL);
            let unlock = |at| if signers.contains(&at) { signature(at) } else { Unlock::Data(vec![]) };
            return (0..count).rev().map(unlock).collect();
        }
        push_number(script, needed as i64);
        for at in 0..count {
            push(script, &self.key(at, wrap, random));
        }
        let more = if random.random_ratio(1, 10) { random.random_range(14..18) } else { 0 };
        script.extend(vec![OP_0; more]); // no keys, but counted as such
        push_number(script, (count + more + usize::from(random.random_ratio(1, 50))) as i64);
        match random.random_ratio(1, 4) {
            true => script.extend([OP_CHECKMULTISIGVERIFY, OP_1]),
            false => script.push(OP_CHECKMULTISIG),
        }
        let dummy = if random.random_ratio(1, 8) { vec![random.random()] } else { vec![] };
        [Unlock::Data(dummy)].into_iter().chain(signers.into_iter().map(signature)).collect()
    }

    /// Puts a script into the output and what unlocks it into the input.
    fn wrap(&self, spend: &mut Spend, wrap: Wrap, script: Vec<u8>, unlock: &[Unlock], random: &mut ChaCha8Rng) {
        let internal = self.keys[random.random_range(0..self.keys.len())].x_only_public_key().0;
        let version = if random.random_ratio(1, 12) { random.random::<u8>() & 0xfe } else { 0xc0 };
        let (mut leaf, mut control) = ([0; 32], Vec::new());
        let program = [&[OP_0, 32][..], sha256::Hash::hash(&script).as_byte_array()].concat();
        let output = match wrap {
            Wrap::Bare => script.clone(),
            Wrap::P2sh => p2sh(&script),
            Wrap::P2wsh => program.clone(),
            Wrap::P2shP2wsh => p2sh(&program),
            Wrap::Leaf => {
                leaf = taproot::leaf_hash(version, &script);
                let path: Vec<[u8; 32]> = (0..random.random_range(0..3)).map(|_| random.random()).collect();
                let root = path.iter().fold(leaf, |below, beside| taproot::branch_hash(&below, beside));
                let tweak = taproot::tweak_hash(&internal.serialize(), Some(&root));
                let tweak = secp256k1::Scalar::from_be_bytes(tweak).expect("a hash is below the group order");
                let (key, parity) = internal.add_tweak(&self.secp, &tweak).expect("no sum is zero by chance");
                control = [&[version | parity.to_u8()], &internal.serialize()[..], path.as_flattened()].concat();
                [&[OP_1, 32], &key.serialize()[..]].concat()
            }
        };
        spend.lock(&output);
        let annex = (wrap == Wrap::Leaf && random.random_ratio(1, 6)).then(|| annex(random));
        let mut elements = Vec::new();
        for item in unlock {
            elements.push(match item {
                Unlock::Data(data) => data.clone(),
                Unlock::Signature { key, .. } if wrap == Wrap::Leaf => {
                    let Unlock::Signature { separator, .. } = *item else { unreachable!("matched above") };
                    let leaf = Some(TapLeaf { hash: leaf, code_separator: separator });
                    let annex = annex.as_deref().map(taproot::annex_hash);
                    self.schnorr(spend, &self.keys[*key], TaprootSpend { annex, leaf }, random)
                }
                Unlock::Signature { key, start, .. } => {
                    let code = script.get(*start..).unwrap_or_default();
                    self.ecdsa(spend, *key, code, wrap.is_witness_v0(), random)
                }
            });
        }
        let input = &mut spend.transaction.input[spend.index];
        match wrap {
            Wrap::Bare => input.script_sig = pushes(&elements, random),
            Wrap::P2sh => {
                elements.push(script);
                input.script_sig = pushes(&elements, random);
            }
            Wrap::P2wsh | Wrap::P2shP2wsh => {
                elements.push(script);
                input.witness = Witness::from_slice(&elements);
                if wrap == Wrap::P2shP2wsh {
                    input.script_sig = pushes(&[program], random);
                }
            }
            Wrap::Leaf => {
                elements.extend([script, control].into_iter().chain(annex));
                input.witness = Witness::from_slice(&elements);
            }
        }
    }

    fn witness_key_hash(&self, spend: &mut Spend, random: &mut ChaCha8Rng) {
        let at = random.random_range(0..self.keys.len());
        let key = self.key(at, Wrap::P2wsh, random);
        let hash = hash160::Hash::hash(&key);
        let program = [&[OP_0, 20][..], hash.as_byte_array()].concat();
        let nested = random.random();
        let output = if nested { p2sh(&program) } else { program.clone() };
        spend.lock(&output);
        let code = [&[OP_DUP, OP_HASH160, 20][..], hash.as_byte_array(), &[OP_EQUALVERIFY, OP_CHECKSIG]].concat();
        let signature = self.ecdsa(spend, at, &code, true, random);
        let input = &mut spend.transaction.input[spend.index];
        input.witness = Witness::from_slice(&[signature, key]);
        if nested {
            input.script_sig = pushes(&[program], random);
        }
    }

    fn taproot_key_path(&self, spend: &mut Spend, random: &mut ChaCha8Rng) {
        let pair = &self.keys[random.random_range(0..self.keys.len())];
        let output = [&[OP_1, 32], &pair.x_only_public_key().0.serialize()[..]].concat();
        spend.lock(&output);
        let annex = random.random_ratio(1, 4).then(|| annex(random));
        let hashed = TaprootSpend { annex: annex.as_deref().map(taproot::annex_hash), leaf: None };
        let signature = self.schnorr(spend, pair, hashed, random);
        let elements: Vec<Vec<u8>> = [signature].into_iter().chain(annex).collect();
        spend.transaction.input[spend.index].witness = Witness::from_slice(&elements);
    }

    /// A script that holds the very signature it checks: signing and checking leave it out.
    fn signature_in_script(&self, spend: &mut Spend, random: &mut ChaCha8Rng) {
        let at = random.random_range(0..self.keys.len());
        let mut code = vec![OP_DROP];
        push(&mut code, &self.keys[at].public_key().serialize());
        code.push(OP_CHECKSIG);
        if random.random_ratio(1, 3) {
            code.insert(0, OP_CODESEPARATOR); // executed or not, it never stands in what is hashed
        }
        let signature = self.ecdsa(spend, at, &code, false, random);
        let mut script = Vec::new();
        push(&mut script, &signature);
        script.extend(&code);
        let wrap = if random.random() { Wrap::Bare } else { Wrap::P2sh };
        self.wrap(spend, wrap, script, &[Unlock::Data(signature)], random);
    }

    fn ecdsa(&self, spend: &Spend, key: usize, code: &[u8], witness: bool, random: &mut ChaCha8Rng) -> Vec<u8> {
        let hash_type = hash_type(random);
        let sighashes = Sighashes::new(&spend.transaction, &spend.coins);
        let message = match witness {
            true => sighashes.witness_v0(spend.index, code, u32::from(hash_type)),
            false => sighashes.legacy(spend.index, code, u32::from(hash_type)),
        };
        let signature = self.secp.sign_ecdsa(&Message::from_digest(message), &self.keys[key].secret_key());
        let mut compact = signature.serialize_compact();
        if random.random_ratio(1, 10) {
            let s = SecretKey::from_slice(&compact[32..]).expect("S is below the group order").negate();
            compact[32..].copy_from_slice(&s.secret_bytes()); // high
        }
        let mut der = der(&compact[..32], &compact[32..], random.random_ratio(1, 12).then_some(random));
        der.push(hash_type);
        der
    }

    fn schnorr(&self, spend: &Spend, pair: &Keypair, hashed: TaprootSpend, random: &mut ChaCha8Rng) -> Vec<u8> {
        let hash_type = if random.random() { SIGHASH_DEFAULT } else { hash_type(random) };
        let sighashes = Sighashes::new(&spend.transaction, &spend.coins);
        let message = sighashes.taproot(spend.index, hash_type, &hashed).unwrap_or_default();
        let signature = self.secp.sign_schnorr_no_aux_rand(&Message::from_digest(message), pair);
        let mut signature = signature.serialize().to_vec();
        if hash_type != SIGHASH_DEFAULT {
            signature.push(hash_type);
        }
        signature
    }
}

/// A transaction of a few inputs and outputs with its signed input still open.
fn unsigned(random: &mut ChaCha8Rng) -> Spend {
    let count = random.random_range(1..=4);
    let sequences = [0, 5, 10, 1 << 22, (1 << 22) + 10, 0xffff_fffe, 0xffff_ffff, random.random()];
    let locks = [0, 100, 500, 500_000_000, 500_000_100, u32::MAX, random.random()];
    let versions = [1, 2, 2, 2, 3, -1, random.random()];
    let input = |random: &mut ChaCha8Rng| TxIn {
        previous_output: OutPoint::new(Txid::from_byte_array(random.random()), random.random_range(0..3)),
        script_sig: ScriptBuf::new(),
        sequence: Sequence(sequences[random.random_range(0..sequences.len())]),
        witness: Witness::new(),
    };
    let output = |random: &mut ChaCha8Rng| TxOut {
        value: Amount::from_sat(random.random_range(0..1 << 50)),
        script_pubkey: bytes(random, 40).into(),
    };
    let coin =
        |random: &mut ChaCha8Rng| Coin::from_parts(random.random_range(0..1 << 50), &bytes(random, 40), 0, false);
    Spend {
        index: random.random_range(0..count),
        coins: (0..count).map(|_| coin(random)).collect(),
        transaction: Transaction {
            version: transaction::Version(versions[random.random_range(0..versions.len())]),
            lock_time: absolute::LockTime::from_consensus(locks[random.random_range(0..locks.len())]),
            input: (0..count).map(|_| input(random)).collect(),
            output: (0..random.random_range(0..4)).map(|_| output(random)).collect(),
        },
    }
}

fn unknown_program(spend: &mut Spend, random: &mut ChaCha8Rng) {
    let version = [OP_0, OP_1, OP_1, OP_2, OP_16][random.random_range(0..5)];
    let program = if random.random_ratio(1, 4) { vec![0x4e, 0x73] } else { bytes(random, 43) };
    let program = [&[version, program.len() as u8][..], &program].concat();
    let nested = random.random();
    let output = if nested { p2sh(&program) } else { program.clone() };
    spend.lock(&output);
    let input = &mut spend.transaction.input[spend.index];
    let elements: Vec<Vec<u8>> = (0..random.random_range(0..4)).map(|_| bytes(random, 70)).collect();
    input.witness = Witness::from_slice(&elements);
    if nested {
        input.script_sig = pushes(&[program], random);
    }
}

/// Operations that run for a while: each with what it takes and leaves, chosen by what is there.
fn soup(script: &mut Vec<u8>, random: &mut ChaCha8Rng) -> Vec<Unlock> {
    let mut depth = random.random_range(0..4_usize);
    let unlock = (0..depth).map(|_| Unlock::Data(number(random))).collect();
    for _ in 0..random.random_range(1..60) {
        let code = random.random_range(OP_NOP..=OP_CHECKSIGADD + 1);
        let (takes, leaves) = match code {
            OP_IFDUP | OP_CHECKLOCKTIMEVERIFY | OP_CHECKSEQUENCEVERIFY => (1, 1),
            OP_DROP | OP_VERIFY => (1, 0),
            OP_2DROP | OP_EQUALVERIFY | OP_NUMEQUALVERIFY => (2, 0),
            OP_DUP | OP_SIZE => (1, 2),
            OP_2DUP => (2, 4),
            OP_3DUP => (3, 6),
            OP_2OVER => (4, 6),
            OP_2ROT => (6, 6),
            OP_2SWAP => (4, 4),
            OP_DEPTH => (0, 1),
            OP_NIP | OP_EQUAL | OP_ADD | OP_SUB | OP_BOOLAND | OP_BOOLOR | OP_NUMEQUAL => (2, 1),
            OP_NUMNOTEQUAL..=OP_MAX | OP_CHECKSIG => (2, 1),
            OP_OVER | OP_TUCK => (2, 3),
            OP_ROT => (3, 3),
            OP_SWAP => (2, 2),
            OP_WITHIN => (3, 1),
            OP_1ADD | OP_1SUB | OP_NEGATE..=OP_0NOTEQUAL | OP_RIPEMD160..=OP_HASH256 => (1, 1),
            OP_NOP | OP_NOP1..=OP_NOP10 | OP_CODESEPARATOR => (0, 0),
            OP_PICK | OP_ROLL if depth > 1 => {
                push_number(script, random.random_range(0..depth as i64));
                script.push(code);
                depth += usize::from(code == OP_PICK);
                continue;
            }
            OP_IF | OP_NOTIF if depth > 0 => {
                script.extend([OP_DUP, code]);
                push(script, &number(random));
                script.push(OP_DROP);
                script.extend(if random.random() { &[OP_ELSE, OP_NOP, OP_ENDIF][..] } else { &[OP_ENDIF] });
                continue;
            }
            OP_TOALTSTACK if depth > 0 => {
                script.extend([OP_TOALTSTACK, OP_FROMALTSTACK]);
                continue;
            }
            OP_CHECKMULTISIG => {
                script.extend([OP_0, OP_0, OP_0, OP_CHECKMULTISIG]);
                depth += 1;
                continue;
            }
            _ if random.random_ratio(1, 200) => (0, 0), // whatever it does
            _ => {
                push(script, &number(random));
                depth += 1;
                continue;
            }
        };
        if takes <= depth {
            script.push(code);
            depth = depth - takes + leaves;
        }
    }
    script.extend(vec![OP_DROP; depth]);
    script.push(OP_1);
    unlock
}

/// Changes a script before it is committed to.
fn spoil_script(script: &mut Vec<u8>, random: &mut ChaCha8Rng) {
    let at = random.random_range(0..=script.len());
    match random.random_range(0..3) {
        0 => script.insert(at, random.random()),
        1 => {
            script.insert(at, [OP_NOP, OP_CODESEPARATOR, OP_NOP10, OP_RETURN, OP_1, 80, 254][random.random_range(0..7)])
        }
        2 if at < script.len() => {
            script.remove(at);
        }
        _ if at < script.len() => script[at] = random.random(),
        _ => script.push(random.random()),
    }
}

/// Appends to a script about as much as some limit allows.
fn stretch(script: &mut Vec<u8>, random: &mut ChaCha8Rng) {
    match random.random_range(0..4) {
        0 => script.extend(vec![OP_NOP; random.random_range(185..205)]), // operations
        1 => {
            push(script, &vec![1; random.random_range(515..525)]); // bytes of an element
            script.push(OP_DROP);
        }
        2 => {
            let end = random.random_range(9_997..10_003); // bytes of a script
            while script.len() + 300 < end {
                push(script, &[1; 200]);
                script.push(OP_DROP);
            }
            push(script, &vec![1; end.saturating_sub(script.len() + 3)]);
            script.push(OP_DROP);
        }
        _ => {
            let depth = random.random_range(997..1003); // elements
            script.extend([vec![OP_1; depth], vec![OP_DROP; depth]].concat());
        }
    }
}

/// A number that arithmetic takes, mostly; some are too long or not in the shortest form.
fn number(random: &mut ChaCha8Rng) -> Vec<u8> {
    match random.random_range(0..8) {
        0 => vec![],
        1 => vec![1],
        2 => vec![random.random()],
        3 => vec![random.random(), random.random::<u8>() & 0x80],
        4 => bytes(random, 6),
        5 => vec![0xff, 0xff, 0xff, random.random()],
        _ => vec![random.random_range(1..17)],
    }
}

fn hash_type(random: &mut ChaCha8Rng) -> u8 {
    let defined = [1, 1, 1, 2, 3, 3, 0x81, 0x82, 0x83];
    if random.random_ratio(1, 12) { random.random() } else { defined[random.random_range(0..defined.len())] }
}

/// Two numbers as DER; with `odd`, in a form that only the lax reading takes.
fn der(r: &[u8], s: &[u8], odd: Option<&mut ChaCha8Rng>) -> Vec<u8> {
    let integer = |value: &[u8], padding: usize| {
        let value: Vec<u8> = value.iter().copied().skip_while(|byte| *byte == 0).collect();
        let sign = usize::from(value.first().is_none_or(|first| first & 0x80 != 0));
        (vec![0; sign + padding], value)
    };
    let (mut length, mut padding, mut trailing) = (None, 0, 0);
    if let Some(random) = odd {
        match random.random_range(0..4) {
            0 => length = Some(random.random::<u8>() & 0x7f),
            1 => padding = random.random_range(1..4),
            2 => trailing = random.random_range(1..9),
            _ => length = Some(0x81),
        }
    }
    let mut body = Vec::new();
    for (zeros, value) in [integer(r, padding), integer(s, 0)] {
        body.extend([2, (zeros.len() + value.len()) as u8]);
        body.extend(zeros);
        body.extend(value);
    }
    body.extend(vec![0; trailing]);
    match length {
        Some(0x81) => [&[0x30, 0x81, body.len() as u8][..], &body].concat(),
        claimed => [&[0x30, claimed.unwrap_or(body.len() as u8)][..], &body].concat(),
    }
}

fn annex(random: &mut ChaCha8Rng) -> Vec<u8> {
    [&[taproot::ANNEX_TAG][..], &bytes(random, 300)].concat()
}

fn p2sh(script: &[u8]) -> Vec<u8> {
    [&[OP_HASH160, 20][..], hash160::Hash::hash(script).as_byte_array(), &[OP_EQUAL]].concat()
}

/// A script that pushes the elements; now and then one in a longer form.
fn pushes(elements: &[Vec<u8>], random: &mut ChaCha8Rng) -> ScriptBuf {
    let mut script = Vec::new();
    for element in elements {
        if random.random_ratio(1, 60) {
            script.extend([OP_PUSHDATA2, element.len() as u8, (element.len() >> 8) as u8]);
            script.extend(element);
        } else {
            push(&mut script, element);
        }
    }
    script.into()
}

/// Up to `most` random bytes.
fn bytes(random: &mut ChaCha8Rng, most: usize) -> Vec<u8> {
    let length = random.random_range(0..=most);
    (0..length).map(|_| random.random()).collect()
}
