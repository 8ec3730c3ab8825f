//! Keys, their output scripts of every kind, and the signing of inputs that spend them.

use bitcoin::hashes::Hash;
use bitcoin::key::{Keypair, PrivateKey, TapTweak, UntweakedPublicKey};
use bitcoin::opcodes::all::{OP_CHECKMULTISIG, OP_CHECKSIG, OP_PUSHNUM_2, OP_PUSHNUM_3};
use bitcoin::script::{Builder, PushBytesBuf, ScriptBuf};
use bitcoin::secp256k1::{All, Message, Secp256k1, SecretKey};
use bitcoin::sighash::{EcdsaSighashType, Prevouts, SighashCache, TapSighashType};
use bitcoin::taproot::{ControlBlock, LeafVersion, TapLeafHash, TaprootBuilder};
use bitcoin::{Network, PublicKey, Transaction, TxOut, Witness, ecdsa};
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::Coin;
use crate::regtest::{output, push};

/// Kinds of coin, in the order of [`NAMES`] and [`MIX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "`NAMES` says what they are")]
pub enum Kind {
    P2wpkh,
    TaprootKey,
    P2pkh,
    P2shP2wpkh,
    P2wshMultisig,
    TaprootScript,
    BareMultisig,
    P2shMultisig,
}

/// All of them.
pub const KINDS: [Kind; 8] = [
    Kind::P2wpkh,
    Kind::TaprootKey,
    Kind::P2pkh,
    Kind::P2shP2wpkh,
    Kind::P2wshMultisig,
    Kind::TaprootScript,
    Kind::BareMultisig,
    Kind::P2shMultisig,
];
/// How the summary calls them; the multisigs are 2 of 3.
pub const NAMES: [&str; 8] = [
    "p2wpkh",
    "taproot-key-path",
    "p2pkh",
    "p2sh-p2wpkh",
    "p2wsh-multisig",
    "taproot-script-path",
    "bare-multisig",
    "p2sh-multisig",
];
/// Per cent of all inputs: today's mix.
pub const MIX: [u32; 8] = [45, 25, 10, 10, 6, 2, 1, 1];

/// What the checks of some inputs come to; fields as in `Summary`.
#[derive(Clone, Copy, Debug, Default)]
#[expect(missing_docs, reason = "fields as in `Summary`")]
pub struct Checks {
    pub ecdsa: u64,
    pub ecdsa_failing: u64,
    pub schnorr: u64,
    pub tweaks: u64,
}

impl Checks {
    /// Both together.
    pub fn plus(self, other: Checks) -> Checks {
        Checks {
            ecdsa: self.ecdsa + other.ecdsa,
            ecdsa_failing: self.ecdsa_failing + other.ecdsa_failing,
            schnorr: self.schnorr + other.schnorr,
            tweaks: self.tweaks + other.tweaks,
        }
    }
}

impl Kind {
    /// The number that `Coin::script` keeps: kind and key in one.
    pub fn with_key(self, key: u32) -> u32 {
        key * 8 + self as u32
    }

    /// The kind in such a number.
    pub fn of(script: u32) -> Kind {
        KINDS[script as usize % 8]
    }
}

struct Key {
    secret: SecretKey,
    public: PublicKey,
    /// For the taproot key path: tweaked already.
    tweaked: Keypair,
    /// For the taproot script path: signs the leaf.
    untweaked: Keypair,
    multisig: ScriptBuf,
    leaf: ScriptBuf,
    control: ControlBlock,
    /// Output scripts in the order of `Kind`.
    outputs: [ScriptBuf; 8],
}

/// A ring of keys. Multisig coins of a key also ask for the next two.
pub struct Keys {
    secp: Secp256k1<All>,
    keys: Vec<Key>,
}

impl Keys {
    /// So many keys; the same seed gives the same.
    pub fn new(count: usize, seed: u64) -> Keys {
        let secp = Secp256k1::new();
        let mut random = ChaCha8Rng::seed_from_u64(seed ^ 0x6b65_7973);
        let secrets: Vec<SecretKey> = (0..count)
            .map(|_| {
                let mut bytes = [0; 32];
                random.fill_bytes(&mut bytes);
                SecretKey::from_slice(&bytes).expect("all but 2^-127 of the numbers are keys")
            })
            .collect();
        let publics: Vec<PublicKey> =
            secrets.iter().map(|secret| PrivateKey::new(*secret, Network::Regtest).public_key(&secp)).collect();
        let keys = (0..count)
            .map(|index| {
                let three = [0, 1, 2].map(|step| publics[(index + step) % count]);
                Key::new(&secp, secrets[index], three)
            })
            .collect();
        Keys { secp, keys }
    }

    /// Their number.
    #[expect(clippy::len_without_is_empty, reason = "a ring has a key")]
    pub fn len(&self) -> u32 {
        self.keys.len() as u32
    }

    /// The output script with this number (`Kind::with_key`).
    pub fn script(&self, number: u32) -> &ScriptBuf {
        &self.keys[number as usize / 8].outputs[number as usize % 8]
    }

    /// Signs every input of `transaction`; `coins` are what they spend, in order.
    pub fn sign(&self, transaction: &mut Transaction, coins: &[Coin]) -> Checks {
        let spent: Vec<TxOut> = coins.iter().map(|coin| output(coin.value, self.script(coin.script).clone())).collect();
        let mut checks = Checks::default();
        let mut cache = SighashCache::new(&*transaction);
        let signed: Vec<(ScriptBuf, Witness)> = (0..coins.len())
            .map(|input| self.unlock(&mut cache, input, coins[input].script, &spent, &mut checks))
            .collect();
        for (input, (script_sig, witness)) in transaction.input.iter_mut().zip(signed) {
            input.script_sig = script_sig;
            input.witness = witness;
        }
        checks
    }

    fn unlock(
        &self,
        cache: &mut SighashCache<&Transaction>,
        input: usize,
        script: u32,
        spent: &[TxOut],
        checks: &mut Checks,
    ) -> (ScriptBuf, Witness) {
        let (index, kind) = (script as usize / 8, Kind::of(script));
        let key = &self.keys[index];
        let output = &spent[input];
        match kind {
            Kind::P2wpkh | Kind::P2shP2wpkh => {
                let program = key.outputs[Kind::P2wpkh as usize].as_script();
                let hash = cache
                    .p2wpkh_signature_hash(input, program, output.value, EcdsaSighashType::All)
                    .expect("the input exists and the script is P2WPKH");
                checks.ecdsa += 1;
                let witness = Witness::from_slice(&[self.ecdsa(key, hash.to_byte_array()), key.public.to_bytes()]);
                (if kind == Kind::P2wpkh { ScriptBuf::new() } else { push(program.as_bytes()) }, witness)
            }
            Kind::P2pkh => {
                let signature = self.legacy(cache, input, key, &output.script_pubkey);
                checks.ecdsa += 1;
                let script = Builder::new().push_slice(pushable(signature)).push_key(&key.public).into_script();
                (script, Witness::new())
            }
            Kind::P2wshMultisig => {
                let hash = cache
                    .p2wsh_signature_hash(input, &key.multisig, output.value, EcdsaSighashType::All)
                    .expect("the input exists")
                    .to_byte_array();
                let [first, second] = self.signers(cache, input, index, checks).map(|key| self.ecdsa(key, hash));
                (ScriptBuf::new(), Witness::from_slice(&[vec![], first, second, key.multisig.to_bytes()]))
            }
            Kind::BareMultisig | Kind::P2shMultisig => {
                let [first, second] = self
                    .signers(cache, input, index, checks)
                    .map(|signer| pushable(self.legacy(cache, input, signer, &key.multisig)));
                let mut script = Builder::new().push_int(0).push_slice(first).push_slice(second);
                if kind == Kind::P2shMultisig {
                    script = script.push_slice(pushable(key.multisig.to_bytes()));
                }
                (script.into_script(), Witness::new())
            }
            Kind::TaprootKey => {
                let hash = cache
                    .taproot_key_spend_signature_hash(input, &Prevouts::All(spent), TapSighashType::Default)
                    .expect("the input exists");
                checks.schnorr += 1;
                let signature = self.secp.sign_schnorr_no_aux_rand(&Message::from(hash), &key.tweaked);
                (ScriptBuf::new(), Witness::from_slice(&[signature.serialize()]))
            }
            Kind::TaprootScript => {
                let leaf = TapLeafHash::from_script(&key.leaf, LeafVersion::TapScript);
                let hash = cache
                    .taproot_script_spend_signature_hash(input, &Prevouts::All(spent), leaf, TapSighashType::Default)
                    .expect("the input exists");
                checks.schnorr += 1;
                checks.tweaks += 1;
                let signature = self.secp.sign_schnorr_no_aux_rand(&Message::from(hash), &key.untweaked);
                let witness = [signature.serialize().to_vec(), key.leaf.to_bytes(), key.control.serialize()];
                (ScriptBuf::new(), Witness::from_slice(&witness))
            }
        }
    }

    /// Two of the three keys of a multisig coin, in their order; which two depends on the coin. CHECKMULTISIG tries
    /// from the last key down, so it
    /// fails once where a key above the first does not sign.
    fn signers(
        &self,
        cache: &SighashCache<&Transaction>,
        input: usize,
        index: usize,
        checks: &mut Checks,
    ) -> [&Key; 2] {
        let coin = cache.transaction().input[input].previous_output;
        let absent = u32::from(coin.txid.as_byte_array()[0]) % 3;
        checks.ecdsa += if absent == 0 { 2 } else { 3 };
        checks.ecdsa_failing += u64::from(absent != 0);
        let [first, second] = [[1, 2], [0, 2], [0, 1]][absent as usize];
        [first, second].map(|step| &self.keys[(index + step) % self.keys.len()])
    }

    fn legacy(&self, cache: &SighashCache<&Transaction>, input: usize, key: &Key, script_code: &ScriptBuf) -> Vec<u8> {
        let hash =
            cache.legacy_signature_hash(input, script_code, EcdsaSighashType::All.to_u32()).expect("the input exists");
        self.ecdsa(key, hash.to_byte_array())
    }

    fn ecdsa(&self, key: &Key, hash: [u8; 32]) -> Vec<u8> {
        let signature = self.secp.sign_ecdsa(&Message::from_digest(hash), &key.secret);
        ecdsa::Signature { signature, sighash_type: EcdsaSighashType::All }.to_vec()
    }
}

impl Key {
    fn new(secp: &Secp256k1<All>, secret: SecretKey, three: [PublicKey; 3]) -> Key {
        let public = three[0];
        let untweaked = Keypair::from_secret_key(secp, &secret);
        let internal = UntweakedPublicKey::from_keypair(&untweaked).0;
        let multisig = three
            .iter()
            .fold(Builder::new().push_opcode(OP_PUSHNUM_2), |script, key| script.push_key(key))
            .push_opcode(OP_PUSHNUM_3)
            .push_opcode(OP_CHECKMULTISIG)
            .into_script();
        let leaf = Builder::new().push_x_only_key(&internal).push_opcode(OP_CHECKSIG).into_script();
        let sibling = Builder::new().push_x_only_key(&three[1].into()).push_opcode(OP_CHECKSIG).into_script();
        let tree = TaprootBuilder::new()
            .add_leaf(1, leaf.clone())
            .and_then(|tree| tree.add_leaf(1, sibling))
            .expect("two leaves at depth one make a tree")
            .finalize(secp, internal)
            .expect("the tree is whole");
        let control = tree.control_block(&(leaf.clone(), LeafVersion::TapScript)).expect("the leaf is in the tree");
        let p2wpkh = ScriptBuf::new_p2wpkh(&public.wpubkey_hash().expect("the key is compressed"));
        let outputs = [
            p2wpkh.clone(),
            ScriptBuf::new_p2tr(secp, internal, None),
            ScriptBuf::new_p2pkh(&public.pubkey_hash()),
            p2wpkh.to_p2sh(),
            multisig.to_p2wsh(),
            ScriptBuf::new_p2tr_tweaked(tree.output_key()),
            multisig.clone(),
            multisig.to_p2sh(),
        ];
        let tweaked = untweaked.tap_tweak(secp, None).to_keypair();
        Key { secret, public, tweaked, untweaked, multisig, leaf, control, outputs }
    }
}

fn pushable(bytes: Vec<u8>) -> PushBytesBuf {
    PushBytesBuf::try_from(bytes).expect("signatures and scripts are short")
}
