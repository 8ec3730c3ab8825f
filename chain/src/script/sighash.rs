//! What signatures commit to: the hashes of the original release, of BIP143 and of BIP341, streamed from the
//! transaction. The hash type is hashed as it stands in the signature, defined or not. Judges no signature.

use std::sync::{LazyLock, OnceLock};

use bitcoin::hashes::Hash;
use bitcoin::{OutPoint, Transaction, TxOut};
use sha2::{Digest, Sha256};

use super::opcode::{Cursor, OP_CODESEPARATOR};
use crate::coins::Coin;

/// Taproot only: no hash type byte; commits to the same as [`SIGHASH_ALL`].
pub const SIGHASH_DEFAULT: u8 = 0;
/// Commits to every output.
pub const SIGHASH_ALL: u8 = 1;
/// Commits to no output.
pub const SIGHASH_NONE: u8 = 2;
/// Commits to the output at the input's own position.
pub const SIGHASH_SINGLE: u8 = 3;
/// Added to another type: commits to no other input.
pub const SIGHASH_ANYONECANPAY: u8 = 0x80;

/// By which rules a script is executed and its signatures hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SigVersion {
    /// Before segwit.
    Base,
    /// Version 0 witness programs (BIP143).
    WitnessV0,
    /// A taproot leaf (BIP342).
    Tapscript,
}

/// What a taproot signature commits to besides the transaction ([BIP-0341], [BIP-0342]).
///
/// [BIP-0341]: https://github.com/bitcoin/bips/blob/master/bip-0341.mediawiki
/// [BIP-0342]: https://github.com/bitcoin/bips/blob/master/bip-0342.mediawiki
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaprootSpend {
    /// SHA256 of the annex with its length, if there is one.
    pub annex: Option<[u8; 32]>,
    /// The leaf that is executed; `None` for a key path spend.
    pub leaf: Option<TapLeaf>,
}

/// The executed leaf, as its signatures see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TapLeaf {
    /// The leaf's hash.
    pub hash: [u8; 32],
    /// How many operations precede the last executed OP_CODESEPARATOR; `u32::MAX` before any.
    pub code_separator: u32,
}

/// The parts of the signature hashes that all inputs of one transaction share, each computed at its first use, once,
/// by whichever thread comes first.
#[derive(Debug)]
pub struct Sighashes<'a> {
    transaction: &'a Transaction,
    spent: &'a [Coin],
    shared: OnceLock<Shared>,
    shared_twice: OnceLock<Shared>,
    shared_spent: OnceLock<SharedSpent>,
}

/// SHA256 of all outpoints, all sequence numbers, all outputs (BIP341); once more hashed for BIP143.
#[derive(Debug)]
struct Shared {
    prevouts: [u8; 32],
    sequences: [u8; 32],
    outputs: [u8; 32],
}

/// SHA256 of all spent amounts and of all spent scripts (BIP341).
#[derive(Debug)]
struct SharedSpent {
    amounts: [u8; 32],
    scripts: [u8; 32],
}

impl<'a> Sighashes<'a> {
    /// `spent` holds the outputs that the inputs of `transaction` spend, in input order. Hashes nothing yet.
    ///
    /// # Panics
    /// When the two differ in number.
    pub fn new(transaction: &'a Transaction, spent: &'a [Coin]) -> Sighashes<'a> {
        assert_eq!(transaction.input.len(), spent.len(), "one spent output for each input");
        Sighashes {
            transaction,
            spent,
            shared: OnceLock::new(),
            shared_twice: OnceLock::new(),
            shared_spent: OnceLock::new(),
        }
    }

    /// The transaction.
    pub fn transaction(&self) -> &'a Transaction {
        self.transaction
    }

    /// The spent outputs in input order.
    pub fn spent(&self) -> &'a [Coin] {
        self.spent
    }

    fn shared(&self) -> &Shared {
        self.shared.get_or_init(|| {
            let (mut prevouts, mut sequences, mut outputs) = (Sha256::new(), Sha256::new(), Sha256::new());
            for input in &self.transaction.input {
                prevouts.update(outpoint(&input.previous_output));
                sequences.update(input.sequence.0.to_le_bytes());
            }
            for output in &self.transaction.output {
                update_output(&mut outputs, output);
            }
            Shared {
                prevouts: prevouts.finalize().into(),
                sequences: sequences.finalize().into(),
                outputs: outputs.finalize().into(),
            }
        })
    }

    fn shared_twice(&self) -> &Shared {
        self.shared_twice.get_or_init(|| {
            let Shared { prevouts, sequences, outputs } = self.shared();
            let [prevouts, sequences, outputs] = [prevouts, sequences, outputs].map(|once| Sha256::digest(once).into());
            Shared { prevouts, sequences, outputs }
        })
    }

    fn shared_spent(&self) -> &SharedSpent {
        self.shared_spent.get_or_init(|| {
            let (mut amounts, mut scripts) = (Sha256::new(), Sha256::new());
            for coin in self.spent {
                amounts.update(coin.value().to_sat().to_le_bytes());
                update_bytes(&mut scripts, coin.script_pubkey().as_bytes());
            }
            SharedSpent { amounts: amounts.finalize().into(), scripts: scripts.finalize().into() }
        })
    }

    /// The hash that a signature in `script_code` at input `index` signs, in scripts before segwit. `script_code` comes
    /// without the signatures that find-and-delete removes.
    pub fn legacy(&self, index: usize, script_code: &[u8], hash_type: u32) -> [u8; 32] {
        match legacy_midstate(self.transaction, index, script_code, hash_type) {
            Some(midstate) => finish(midstate, hash_type),
            None => SINGLE_BUG,
        }
    }

    /// The hash that a signature in `script_code` at input `index` signs, in version 0 witness programs ([BIP-0143]).
    ///
    /// [BIP-0143]: https://github.com/bitcoin/bips/blob/master/bip-0143.mediawiki
    pub fn witness_v0(&self, index: usize, script_code: &[u8], hash_type: u32) -> [u8; 32] {
        finish(self.witness_v0_midstate(index, script_code, hash_type), hash_type)
    }

    pub(super) fn witness_v0_midstate(&self, index: usize, script_code: &[u8], hash_type: u32) -> Sha256 {
        let (others, outputs) = (hash_type & u32::from(SIGHASH_ANYONECANPAY) == 0, output_type(hash_type));
        let input = &self.transaction.input[index];
        let shared = self.shared_twice();
        let mut hasher = Sha256::new();
        hasher.update(self.transaction.version.0.to_le_bytes());
        hasher.update(if others { shared.prevouts } else { [0; 32] });
        hasher.update(if others && outputs == Outputs::All { shared.sequences } else { [0; 32] });
        hasher.update(outpoint(&input.previous_output));
        update_bytes(&mut hasher, script_code);
        hasher.update(self.spent[index].value().to_sat().to_le_bytes());
        hasher.update(input.sequence.0.to_le_bytes());
        hasher.update(match (outputs, self.transaction.output.get(index)) {
            (Outputs::All, _) => shared.outputs,
            (Outputs::Single, Some(output)) => Sha256::digest(output_hash(output)).into(),
            (Outputs::Single, None) | (Outputs::None, _) => [0; 32],
        });
        hasher.update(self.transaction.lock_time.to_consensus_u32().to_le_bytes());
        hasher
    }

    /// The hash that a taproot signature at input `index` signs; `None` for a hash type that is not defined, and for
    /// SINGLE where there is no output ([BIP-0341]).
    ///
    /// [BIP-0341]: https://github.com/bitcoin/bips/blob/master/bip-0341.mediawiki
    pub fn taproot(&self, index: usize, hash_type: u8, spend: &TaprootSpend) -> Option<[u8; 32]> {
        self.taproot_with(index, hash_type, spend, output_hash)
    }

    /// [`Sighashes::taproot`] with the hash of the single output asked of the caller, who may remember it.
    pub(super) fn taproot_with(
        &self,
        index: usize,
        hash_type: u8,
        spend: &TaprootSpend,
        single_output: impl Fn(&TxOut) -> [u8; 32],
    ) -> Option<[u8; 32]> {
        if !matches!(hash_type & !SIGHASH_ANYONECANPAY, SIGHASH_ALL..=SIGHASH_SINGLE) && hash_type != SIGHASH_DEFAULT {
            return None;
        }
        let (others, outputs) = (hash_type & SIGHASH_ANYONECANPAY == 0, hash_type & 3);
        let mut hasher = TAP_SIGHASH.clone();
        hasher.update([0, hash_type]); // the epoch, then the type
        hasher.update(self.transaction.version.0.to_le_bytes());
        hasher.update(self.transaction.lock_time.to_consensus_u32().to_le_bytes());
        if others {
            let (shared, spent) = (self.shared(), self.shared_spent());
            for part in [shared.prevouts, spent.amounts, spent.scripts, shared.sequences] {
                hasher.update(part);
            }
        }
        if matches!(outputs, SIGHASH_DEFAULT | SIGHASH_ALL) {
            hasher.update(self.shared().outputs);
        }
        hasher.update([u8::from(spend.leaf.is_some()) << 1 | u8::from(spend.annex.is_some())]);
        if others {
            let position = u32::try_from(index).expect("a transaction has fewer than 2^32 inputs");
            hasher.update(position.to_le_bytes());
        } else {
            let (input, coin) = (&self.transaction.input[index], &self.spent[index]);
            hasher.update(outpoint(&input.previous_output));
            hasher.update(coin.value().to_sat().to_le_bytes());
            update_bytes(&mut hasher, coin.script_pubkey().as_bytes());
            hasher.update(input.sequence.0.to_le_bytes());
        }
        if let Some(annex) = spend.annex {
            hasher.update(annex);
        }
        if outputs == SIGHASH_SINGLE {
            hasher.update(single_output(self.transaction.output.get(index)?));
        }
        if let Some(leaf) = spend.leaf {
            hasher.update(leaf.hash);
            hasher.update([0]); // the version of 32-byte keys
            hasher.update(leaf.code_separator.to_le_bytes());
        }
        Some(hasher.finalize().into())
    }
}

/// What a SINGLE signature before segwit signs where there is no output at the input's position: the number 1. A bug
/// of the original release that is consensus.
pub(super) const SINGLE_BUG: [u8; 32] = {
    let mut one = [0; 32];
    one[0] = 1;
    one
};

/// Which outputs a hash type before taproot commits to. Types that are not defined commit like ALL.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Outputs {
    All,
    None,
    Single,
}

pub(super) fn output_type(hash_type: u32) -> Outputs {
    match hash_type & 0x1f {
        2 => Outputs::None,
        3 => Outputs::Single,
        _ => Outputs::All,
    }
}

/// Appends the hash type and hashes twice.
pub(super) fn finish(mut midstate: Sha256, hash_type: u32) -> [u8; 32] {
    midstate.update(hash_type.to_le_bytes());
    Sha256::digest(midstate.finalize()).into()
}

/// Everything a signature before segwit hashes but the type itself; `None` is the SINGLE bug.
pub(super) fn legacy_midstate(tx: &Transaction, index: usize, script_code: &[u8], hash_type: u32) -> Option<Sha256> {
    let (others, outputs) = (hash_type & u32::from(SIGHASH_ANYONECANPAY) == 0, output_type(hash_type));
    if outputs == Outputs::Single && index >= tx.output.len() {
        return None;
    }
    let mut hasher = Sha256::new();
    hasher.update(tx.version.0.to_le_bytes());
    let inputs = if others { &tx.input[..] } else { &tx.input[index..=index] };
    let own = if others { index } else { 0 };
    update_size(&mut hasher, inputs.len());
    for (position, input) in inputs.iter().enumerate() {
        if position == own {
            hasher.update(outpoint(&input.previous_output));
            update_script_code(&mut hasher, script_code);
            hasher.update(input.sequence.0.to_le_bytes());
        } else {
            // Without their scripts, and open to replacement unless all outputs are committed to.
            let mut blanked = [0; 41];
            blanked[..36].copy_from_slice(&outpoint(&input.previous_output));
            if outputs == Outputs::All {
                blanked[37..].copy_from_slice(&input.sequence.0.to_le_bytes());
            }
            hasher.update(blanked);
        }
    }
    let count = match outputs {
        Outputs::All => tx.output.len(),
        Outputs::None => 0,
        Outputs::Single => index + 1,
    };
    update_size(&mut hasher, count);
    for (position, output) in tx.output[..count].iter().enumerate() {
        if outputs == Outputs::Single && position != index {
            hasher.update([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0]); // -1 satoshi, no script
        } else {
            update_output(&mut hasher, output);
        }
    }
    hasher.update(tx.lock_time.to_consensus_u32().to_le_bytes());
    Some(hasher)
}

/// The script without its OP_CODESEPARATORs, with its length. A push beyond the end stops it where Core stops; a
/// script with one fails in any case.
fn update_script_code(hasher: &mut Sha256, script: &[u8]) {
    let is_separator = |op: &Result<super::opcode::Op<'_>, _>| op.is_ok_and(|op| op.code == OP_CODESEPARATOR);
    let separators = Cursor::new(script).take_while(Result::is_ok).filter(is_separator).count();
    update_size(hasher, script.len() - separators);
    let (mut cursor, mut start) = (Cursor::new(script), 0);
    while let Some(Ok(op)) = cursor.next() {
        if op.code == OP_CODESEPARATOR {
            hasher.update(&script[start..cursor.position() - 1]);
            start = cursor.position();
        }
    }
    hasher.update(&script[start..cursor.position()]);
}

/// The hash of one output, as SINGLE of taproot commits to it.
pub(super) fn output_hash(output: &TxOut) -> [u8; 32] {
    let mut hasher = Sha256::new();
    update_output(&mut hasher, output);
    hasher.finalize().into()
}

fn outpoint(outpoint: &OutPoint) -> [u8; 36] {
    let mut bytes = [0; 36];
    bytes[..32].copy_from_slice(outpoint.txid.as_byte_array());
    bytes[32..].copy_from_slice(&outpoint.vout.to_le_bytes());
    bytes
}

fn update_output(hasher: &mut Sha256, output: &TxOut) {
    hasher.update(output.value.to_sat().to_le_bytes());
    update_bytes(hasher, output.script_pubkey.as_bytes());
}

/// Hashes bytes with their length before them.
pub(super) fn update_bytes(hasher: &mut Sha256, bytes: &[u8]) {
    update_size(hasher, bytes.len());
    hasher.update(bytes);
}

/// Hashes a count as a compact size.
fn update_size(hasher: &mut Sha256, size: usize) {
    match size {
        ..=0xfc => hasher.update([size as u8]),
        0xfd..=0xffff => hasher.update([0xfd, size as u8, (size >> 8) as u8]),
        _ => {
            hasher.update([0xfe]);
            hasher.update(u32::try_from(size).expect("nothing in a transaction reaches 4 GiB").to_le_bytes());
        }
    }
}

/// A hasher that stands behind the two prefix hashes of a tag ([BIP-0340]).
///
/// [BIP-0340]: https://github.com/bitcoin/bips/blob/master/bip-0340.mediawiki
pub(super) fn tagged(tag: &str) -> Sha256 {
    let prefix = Sha256::digest(tag);
    Sha256::new_with_prefix(prefix).chain_update(prefix)
}

static TAP_SIGHASH: LazyLock<Sha256> = LazyLock::new(|| tagged("TapSighash"));
