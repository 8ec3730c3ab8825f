//! Signs inputs and joins signatures, by the keys and scripts that a call brought along; step by step as Core does it
//! (`src/script/sign.cpp`), so that the same keys give the same transaction. Only where a miniscript can be satisfied in
//! several ways the `miniscript` crate may choose another one. Knows no chain.

use std::cell::RefCell;
use std::collections::BTreeMap;

use bitcoin::ecdsa;
use bitcoin::hashes::{Hash, hash160, ripemd160};
use bitcoin::opcodes::all::{OP_PUSHNUM_1, OP_PUSHNUM_NEG1};
use bitcoin::script::{Builder, PushBytesBuf};
use bitcoin::secp256k1::{Keypair, Message};
use bitcoin::{
    EcdsaSighashType, Opcode, PrivateKey, PublicKey, Script, ScriptBuf, Sequence, Witness, absolute, relative,
};
use groat_chain::rules::limits::MAX_MONEY;
use groat_chain::script::opcode::{Cursor, OP_1, OP_1NEGATE, OP_16};
use groat_chain::script::{
    Checker, Flags, ScriptError, SigVersion, Sighashes, TaprootSpend, Template, TransactionChecker, verify_script,
};
use miniscript::{Miniscript, Satisfier, Segwitv0};

use super::keyexpr::SECP;

type Hash20 = [u8; 20];
/// Keys with valid signatures, by the key's hash.
type Signatures = BTreeMap<Hash20, (Vec<u8>, Vec<u8>)>;

fn hash20(bytes: &[u8]) -> Hash20 {
    hash160::Hash::hash(bytes).to_byte_array()
}

/// What a call brought along to sign with. Never shown, never logged.
#[derive(Default)]
pub struct Keys {
    private: BTreeMap<Hash20, PrivateKey>,
    scripts: BTreeMap<Hash20, ScriptBuf>,
}

impl Keys {
    /// Adds a private key.
    pub fn add_key(&mut self, key: PrivateKey) {
        self.private.insert(hash20(&key.public_key(&SECP).to_bytes()), key);
    }

    /// Adds a script that outputs commit to.
    pub fn add_script(&mut self, script: ScriptBuf) {
        self.scripts.insert(hash20(script.as_bytes()), script);
    }
}

/// What is known about how an input is satisfied. Core: `SignatureData`.
#[derive(Clone, Default)]
pub struct Satisfaction {
    /// It satisfies the output.
    pub complete: bool,
    /// The input's script.
    pub script_sig: ScriptBuf,
    /// The input's witness.
    pub witness: Witness,
    redeem_script: ScriptBuf,
    witness_script: ScriptBuf,
    signatures: Signatures,
}

impl Satisfaction {
    /// What an input holds already. Core: `DataFromTransaction`, which does not look at taproot's signatures.
    pub fn of(script_sig: &Script, witness: &Witness, sighashes: &Sighashes<'_>, index: usize) -> Satisfaction {
        let checker = Extractor { inner: TransactionChecker::new(sighashes, index, None), found: RefCell::default() };
        let script_pubkey = sighashes.spent()[index].script_pubkey();
        let complete = verify_script(script_sig, script_pubkey, witness, Flags::STANDARD, &checker).is_ok();
        let mut data = Satisfaction {
            complete,
            script_sig: script_sig.to_owned(),
            witness: witness.clone(),
            ..Satisfaction::default()
        };
        if !complete {
            data.find_scripts(script_pubkey, &checker);
        }
        data.signatures = checker.found.into_inner();
        data
    }

    fn find_scripts(&mut self, script_pubkey: &Script, checker: &Extractor<'_>) {
        let (mut stack, mut witness) = (pushes(&self.script_sig), self.witness.to_vec());
        let (mut script, mut version) = (script_pubkey.to_owned(), SigVersion::Base);
        if script.is_p2sh()
            && let Some(redeem) = stack.pop_if(|last| !last.is_empty())
        {
            self.redeem_script = redeem.into();
            script = self.redeem_script.clone();
        }
        if script.is_p2wsh()
            && let Some(inner) = witness.pop_if(|last| !last.is_empty())
        {
            self.witness_script = inner.into();
            (script, version, stack) = (self.witness_script.clone(), SigVersion::WitnessV0, witness);
        }
        let Template::Multisig(_, keys) = Template::of(&script) else { return };
        let mut next = 0;
        for signature in &stack {
            let fits = |key: &&[u8]| {
                let known = checker.found.borrow().contains_key(&hash20(key));
                known || checker.check_ecdsa(signature, key, script.as_bytes(), version)
            };
            if let Some(at) = keys[next..].iter().position(fits) {
                next += at + 1;
            }
        }
    }

    /// Adds what another one knows. Core: `MergeSignatureData`.
    pub fn merge(&mut self, other: Satisfaction) {
        if self.complete {
            return;
        }
        if other.complete {
            *self = other;
            return;
        }
        if self.redeem_script.is_empty() {
            self.redeem_script = other.redeem_script;
        }
        if self.witness_script.is_empty() {
            self.witness_script = other.witness_script;
        }
        for (hash, signature) in other.signatures {
            self.signatures.entry(hash).or_insert(signature);
        }
    }
}

/// Notes the keys whose signatures are valid.
struct Extractor<'a> {
    inner: TransactionChecker<'a>,
    found: RefCell<Signatures>,
}

impl Checker for Extractor<'_> {
    fn check_ecdsa(&self, signature: &[u8], key: &[u8], script_code: &[u8], version: SigVersion) -> bool {
        let valid = self.inner.check_ecdsa(signature, key, script_code, version);
        if valid {
            self.found.borrow_mut().entry(hash20(key)).or_insert((key.to_vec(), signature.to_vec()));
        }
        valid
    }

    fn check_schnorr(&self, _: &[u8], _: &[u8; 32], _: &TaprootSpend) -> Result<(), ScriptError> {
        Err(ScriptError::SchnorrSig)
    }

    fn check_lock_time(&self, lock: i64) -> bool {
        self.inner.check_lock_time(lock)
    }

    fn check_sequence(&self, lock: i64) -> bool {
        self.inner.check_sequence(lock)
    }
}

/// What a script that only pushes leaves on the stack.
fn pushes(script: &Script) -> Vec<Vec<u8>> {
    let ops = Cursor::new(script.as_bytes()).map_while(|op| op.ok());
    ops.map_while(|op| match op.code {
        OP_1NEGATE => Some(vec![0x81]),
        OP_1..=OP_16 => Some(vec![op.code - OP_1 + 1]),
        code if code < OP_1NEGATE => Some(op.data.to_vec()),
        _ => None,
    })
    .collect()
}

/// The same the other way round. Core: `PushAll`.
fn push_all(elements: &[Vec<u8>]) -> ScriptBuf {
    let push = |script: Builder, element: &Vec<u8>| match element[..] {
        [number @ 1..=16] => script.push_opcode(Opcode::from(OP_PUSHNUM_1.to_u8() + number - 1)),
        [0x81] => script.push_opcode(OP_PUSHNUM_NEG1),
        _ => {
            let bytes = PushBytesBuf::try_from(element.clone()).expect("an element is shorter than 4 GiB");
            script.push_slice(bytes)
        }
    };
    elements.iter().fold(Builder::new(), push).into_script()
}

/// Signs one input.
pub struct Signer<'a> {
    /// What it signs with.
    pub keys: &'a Keys,
    /// The transaction and what it spends.
    pub sighashes: &'a Sighashes<'a>,
    /// Number of the input.
    pub index: usize,
    /// How it signs; DEFAULT is ALL for all but taproot.
    pub hash_type: u8,
    /// All spent outputs are known, as taproot's signatures need it.
    pub all_spent: bool,
}

impl Signer<'_> {
    /// Makes what is lacking, as far as the keys go. Core: `ProduceSignature`.
    pub fn produce(&self, data: &mut Satisfaction) {
        if data.complete {
            return;
        }
        let script_pubkey = self.sighashes.spent()[self.index].script_pubkey();
        let (mut script, mut redeem) = (script_pubkey.to_owned(), None);
        let mut known = true;
        if script.is_p2sh() {
            match self.script_of(script.as_bytes()[2..22].try_into().expect("20 bytes"), data) {
                Some(found) => {
                    data.redeem_script = found.clone();
                    redeem = Some(found.to_bytes());
                    script = found;
                }
                None => known = false,
            }
        }
        let (mut stack, mut solved) = (Vec::new(), false);
        let mut witness = Vec::new();
        let mut has_witness = false;
        if known {
            match Template::of(&script) {
                Template::ScriptHash => {}
                Template::WitnessV0KeyHash => {
                    let implied = ScriptBuf::new_p2pkh(&Hash::from_slice(&script.as_bytes()[2..]).expect("20 bytes"));
                    solved = self.step(&implied, SigVersion::WitnessV0, data, &mut witness);
                    has_witness = true;
                }
                Template::WitnessV0ScriptHash => {
                    let hash = ripemd160::Hash::hash(&script.as_bytes()[2..]).to_byte_array();
                    if let Some(inner) = self.script_of(hash, data) {
                        data.witness_script = inner.clone();
                        solved = self.witness_script(&inner, data, &mut witness);
                        witness.push(inner.into_bytes());
                        has_witness = true;
                    }
                }
                Template::WitnessV1Taproot(key) if redeem.is_none() => {
                    has_witness = true;
                    if let Some(signature) = self.taproot(key) {
                        witness.push(signature);
                        solved = true;
                    } else {
                        witness = data.witness.to_vec();
                    }
                }
                _ => solved = self.step(&script, SigVersion::Base, data, &mut stack),
            }
        }
        stack.extend(redeem);
        data.script_sig = push_all(&stack);
        data.witness = if has_witness { Witness::from_slice(&witness) } else { Witness::new() };
        data.complete = solved && self.verify(&data.script_sig, &data.witness).is_ok();
    }

    /// Whether this satisfies the output under the rules that peers hold transactions to.
    pub fn verify(&self, script_sig: &Script, witness: &Witness) -> Result<(), ScriptError> {
        let script_pubkey = self.sighashes.spent()[self.index].script_pubkey();
        let checker = TransactionChecker::new(self.sighashes, self.index, None);
        verify_script(script_sig, script_pubkey, witness, Flags::STANDARD, &checker)
    }

    fn script_of(&self, hash: Hash20, data: &Satisfaction) -> Option<ScriptBuf> {
        let own = [&data.redeem_script, &data.witness_script];
        let own = || own.into_iter().find(|script| hash20(script.as_bytes()) == hash);
        self.keys.scripts.get(&hash).or_else(own).cloned()
    }

    /// Core: `SignStep`, for scripts that commit to no other script.
    fn step(&self, script: &Script, version: SigVersion, data: &mut Satisfaction, stack: &mut Vec<Vec<u8>>) -> bool {
        match Template::of(script) {
            Template::PubKey(key) => {
                let signature = self.signature(key, script, version, data);
                stack.extend(signature);
                !stack.is_empty()
            }
            Template::PubKeyHash => {
                let hash = script.as_bytes()[3..23].try_into().expect("20 bytes");
                let Some(key) = self.public_key(hash, data) else { return false };
                let Some(signature) = self.signature(&key, script, version, data) else { return false };
                stack.extend([signature, key]);
                true
            }
            Template::Multisig(required, keys) => {
                // CHECKMULTISIG takes one element too many.
                stack.push(Vec::new());
                for key in keys {
                    // All that can be made, since others may go on from here.
                    let signature = self.signature(key, script, version, data);
                    stack.extend(signature.filter(|_| stack.len() <= required));
                }
                let complete = stack.len() == required + 1;
                // Core fills up half of what lacks.
                let lacking = required + 1 - stack.len();
                stack.resize(stack.len() + lacking.div_ceil(2), Vec::new());
                complete
            }
            Template::Anchor => true,
            _ => false,
        }
    }

    fn witness_script(&self, script: &Script, data: &mut Satisfaction, stack: &mut Vec<Vec<u8>>) -> bool {
        if self.step(script, SigVersion::WitnessV0, data, stack) {
            return true;
        }
        if !stack.is_empty() {
            return false;
        }
        let Ok(whole) = Miniscript::<PublicKey, Segwitv0>::parse_with_ext(script, &miniscript::ExtParams::allow_all())
        else {
            return false;
        };
        let lookup = Lookup { signer: self, script, data: RefCell::new(data) };
        match whole.satisfy(lookup) {
            Ok(elements) => {
                *stack = elements;
                true
            }
            Err(_) => false,
        }
    }

    /// A taproot output's own key, as it stands in the output.
    fn taproot(&self, key: &[u8]) -> Option<Vec<u8>> {
        let secret = [2, 3].iter().find_map(|sign| self.keys.private.get(&hash20(&[&[*sign], key].concat())))?;
        let spend = TaprootSpend { annex: None, leaf: None };
        let hash = self.sighashes.taproot(self.index, self.hash_type, &spend).filter(|_| self.all_spent)?;
        let pair = Keypair::from_secret_key(&SECP, &secret.inner);
        let signature = SECP.sign_schnorr_with_aux_rand(&Message::from_digest(hash), &pair, &[0; 32]);
        let mut bytes = signature.serialize().to_vec();
        bytes.extend(Some(self.hash_type).filter(|hash_type| *hash_type != 0));
        Some(bytes)
    }

    fn public_key(&self, hash: Hash20, data: &Satisfaction) -> Option<Vec<u8>> {
        let signed = data.signatures.get(&hash).map(|(key, _)| key.clone());
        signed.or_else(|| Some(self.keys.private.get(&hash)?.public_key(&SECP).to_bytes()))
    }

    /// One that is there, or a new one. Core: `CreateSig`.
    fn signature(&self, key: &[u8], script: &Script, version: SigVersion, data: &mut Satisfaction) -> Option<Vec<u8>> {
        let hash = hash20(key);
        if let Some((_, signature)) = data.signatures.get(&hash) {
            return Some(signature.clone());
        }
        let secret = self.keys.private.get(&hash)?;
        if version == SigVersion::WitnessV0 && !secret.compressed {
            return None;
        }
        let hash_type = if self.hash_type == 0 { EcdsaSighashType::All as u8 } else { self.hash_type };
        let digest = match version {
            SigVersion::Base => self.sighashes.legacy(self.index, script.as_bytes(), u32::from(hash_type)),
            _ => self.sighashes.witness_v0(self.index, script.as_bytes(), u32::from(hash_type)),
        };
        // Low R as Core has it, which saves a byte.
        let signature = SECP.sign_ecdsa_low_r(&Message::from_digest(digest), &secret.inner);
        let mut bytes = signature.serialize_der().to_vec();
        bytes.push(hash_type);
        data.signatures.insert(hash, (key.to_vec(), bytes.clone()));
        Some(bytes)
    }
}

/// Signatures and locks for the `miniscript` crate.
struct Lookup<'a, 'd> {
    signer: &'a Signer<'a>,
    script: &'a Script,
    data: RefCell<&'d mut Satisfaction>,
}

impl Satisfier<PublicKey> for Lookup<'_, '_> {
    fn lookup_ecdsa_sig(&self, key: &PublicKey) -> Option<ecdsa::Signature> {
        let mut data = self.data.borrow_mut();
        let bytes = self.signer.signature(&key.to_bytes(), self.script, SigVersion::WitnessV0, &mut data)?;
        ecdsa::Signature::from_slice(&bytes).ok()
    }

    fn lookup_raw_pkh_pk(&self, hash: &hash160::Hash) -> Option<PublicKey> {
        PublicKey::from_slice(&self.signer.public_key(hash.to_byte_array(), &self.data.borrow())?).ok()
    }

    fn lookup_raw_pkh_ecdsa_sig(&self, hash: &hash160::Hash) -> Option<(PublicKey, ecdsa::Signature)> {
        let key = self.lookup_raw_pkh_pk(hash)?;
        Some((key, self.lookup_ecdsa_sig(&key)?))
    }

    fn check_older(&self, lock: relative::LockTime) -> bool {
        let checker = TransactionChecker::new(self.signer.sighashes, self.signer.index, None);
        checker.check_sequence(i64::from(Sequence::from(lock).to_consensus_u32()))
    }

    fn check_after(&self, lock: absolute::LockTime) -> bool {
        let checker = TransactionChecker::new(self.signer.sighashes, self.signer.index, None);
        checker.check_lock_time(i64::from(lock.to_consensus_u32()))
    }
}

/// An amount that stands for one that nobody told.
pub const UNKNOWN_AMOUNT: u64 = MAX_MONEY;
