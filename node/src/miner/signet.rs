//! The solution of a signet's challenge ([BIP-0325]): what a miner with the key adds to its coinbase. Checks nothing:
//! `groat_chain::rules::signet` does.
//!
//! [BIP-0325]: https://github.com/bitcoin/bips/blob/master/bip-0325.mediawiki

use std::path::Path;

use anyhow::{Context, bail};
use bitcoin::block::Header;
use bitcoin::consensus::serialize;
use bitcoin::hashes::Hash;
use bitcoin::script::{Builder, PushBytesBuf};
use bitcoin::secp256k1::{Message, Secp256k1, SecretKey};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::{Amount, NetworkKind, PrivateKey, PublicKey, Script, ScriptBuf, Transaction, Witness};
use groat_chain::rules::signet::{SIGNET_HEADER, to_sign};
use groat_chain::script::Template as Form;
use hex::FromHex;

/// The key that a challenge asks for.
pub struct Signer {
    challenge: ScriptBuf,
    key: PrivateKey,
    form: Solves,
}

/// How the key solves the challenge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Solves {
    /// A witness program of the key's hash.
    WitnessKeyHash,
    /// The key itself.
    Key,
    /// Multisig that takes one signature.
    Multisig,
}

impl Signer {
    /// Reads a key (WIF, or 64 hex digits) from a file and sees whether it solves the challenge.
    pub fn from_file(path: &Path, challenge: &Script) -> anyhow::Result<Signer> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let key = read_key(text.trim())
            .with_context(|| format!("{} holds no key: it is a WIF or 64 hex digits", path.display()))?;
        Signer::new(key, challenge)
    }

    fn new(key: PrivateKey, challenge: &Script) -> anyhow::Result<Signer> {
        let forms = [true, false].map(|compressed| PrivateKey { compressed, ..key });
        for key in forms {
            let public = key.public_key(&Secp256k1::new());
            if let Some(form) = form_of(challenge, &public) {
                return Ok(Signer { challenge: challenge.to_owned(), key, form });
            }
        }
        bail!(
            "the key does not solve this signet's challenge, which must ask for one signature: a P2WPKH program, a public \
             key, or multisig of one"
        )
    }

    /// Puts the solution into the coinbase, whose last output commits to witnesses. `header` gives the header that a
    /// coinbase leads to; the nonce may change afterwards, the time may not.
    pub fn solve(&self, coinbase: &mut Transaction, header: impl Fn(&Transaction) -> Header) -> Header {
        let commitment = coinbase.output.len() - 1;
        let bare = coinbase.output[commitment].script_pubkey.clone();
        let with = |push: &[u8]| {
            let push = PushBytesBuf::try_from(push.to_vec()).expect("a solution is short");
            Builder::from(bare.to_bytes()).push_slice(push).into_script()
        };
        coinbase.output[commitment].script_pubkey = with(&SIGNET_HEADER);
        let (script_sig, witness) = self.sign(&to_sign(&header(coinbase), &self.challenge));
        let solution = [&SIGNET_HEADER[..], &serialize(&script_sig), &serialize(&witness)].concat();
        coinbase.output[commitment].script_pubkey = with(&solution);
        header(coinbase)
    }

    fn sign(&self, spend: &Transaction) -> (ScriptBuf, Witness) {
        let secp = Secp256k1::signing_only();
        let (all, mut hashes) = (EcdsaSighashType::All, SighashCache::new(spend));
        let hash = match self.form {
            Solves::WitnessKeyHash => hashes
                .p2wpkh_signature_hash(0, &self.challenge, Amount::ZERO, all)
                .expect("it has one input, and the challenge is such a program")
                .to_byte_array(),
            Solves::Key | Solves::Multisig => hashes
                .legacy_signature_hash(0, &self.challenge, all.to_u32())
                .expect("it has one input")
                .to_byte_array(),
        };
        let signature = secp.sign_ecdsa(&Message::from_digest(hash), &self.key.inner);
        let signature = bitcoin::ecdsa::Signature { signature, sighash_type: all };
        let push = PushBytesBuf::try_from(signature.to_vec()).expect("a signature is short");
        match self.form {
            Solves::WitnessKeyHash => {
                let public = self.key.public_key(&Secp256k1::new());
                (ScriptBuf::new(), Witness::p2wpkh(&signature, &public.inner))
            }
            Solves::Key => (Builder::new().push_slice(push).into_script(), Witness::new()),
            Solves::Multisig => (Builder::new().push_int(0).push_slice(push).into_script(), Witness::new()),
        }
    }
}

fn form_of(challenge: &Script, public: &PublicKey) -> Option<Solves> {
    let bytes = public.to_bytes();
    match Form::of(challenge) {
        Form::PubKey(key) if key == bytes => Some(Solves::Key),
        Form::Multisig(1, keys) if keys.contains(&bytes.as_slice()) => Some(Solves::Multisig),
        _ => {
            let hash = public.wpubkey_hash().ok()?;
            (challenge == ScriptBuf::new_p2wpkh(&hash).as_script()).then_some(Solves::WitnessKeyHash)
        }
    }
}

fn read_key(text: &str) -> Option<PrivateKey> {
    if let Ok(key) = PrivateKey::from_wif(text) {
        return Some(key);
    }
    let bytes = <[u8; 32]>::from_hex(text).ok()?;
    Some(PrivateKey::new(SecretKey::from_slice(&bytes).ok()?, NetworkKind::Test))
}

#[cfg(test)]
mod tests {
    use super::*;
    use groat_chain::mempool::Selected;
    use groat_chain::params::Params;
    use groat_chain::rules::signet::check_solution;
    use groat_chain::template::{Place, Template};
    use groat_chain::tree::{Id, Tree};

    #[test]
    fn a_solution_holds_for_each_form_of_challenge_and_for_no_other_key() {
        let key = read_key(&"11".repeat(32)).expect("it is a key");
        let public = key.public_key(&Secp256k1::new());
        let hash = public.wpubkey_hash().expect("it is compressed");
        let hex = public.to_string();
        let multisig = ScriptBuf::from_hex(&format!("5121{hex}51ae")).expect("it is hex");
        for challenge in [ScriptBuf::new_p2wpkh(&hash), ScriptBuf::new_p2pk(&public), multisig] {
            let params = Params::signet(Some(challenge.clone()));
            let signer = Signer::new(key, &challenge).expect("the key solves it");
            let tree = Tree::new(&params.genesis.header);
            let now = params.genesis.header.time + 600;
            let place = Place::on(&tree.branch(Id::GENESIS), params.genesis_hash, &params, now);
            let template = Template::new(place, ScriptBuf::new(), Selected::default());
            let mut coinbase = template.coinbase_with(7);
            let unsolved = template.block(template.header(&coinbase), coinbase.clone());
            let header = signer.solve(&mut coinbase, |coinbase| template.header(coinbase));
            let solved = template.block(Header { nonce: 99, ..header }, coinbase);
            let holds = |block: &bitcoin::Block| {
                let block = groat_chain::block::Block::decode(&serialize(block)).expect("it was just written");
                check_solution(&block, &params).is_ok()
            };
            assert!(holds(&solved), "{challenge:x}");
            assert!(!holds(&unsolved), "{challenge:x} without a solution");
            let later = Header { time: solved.header.time + 1, ..solved.header };
            assert!(!holds(&bitcoin::Block { header: later, ..solved.clone() }), "{challenge:x} at another time");
            let other = read_key(&"22".repeat(32)).expect("it is a key");
            assert!(Signer::new(other, &challenge).is_err(), "{challenge:x} with another key");
        }
    }
}
