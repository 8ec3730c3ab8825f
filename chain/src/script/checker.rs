//! Who answers the questions of a script about its transaction: the trait, and the checker of a real transaction.

use std::cell::{OnceCell, RefCell};

use sha2::Sha256;
use smallvec::SmallVec;

use super::cache::VerdictCache;
use super::error::ScriptError;
use super::flags::Flags;
use super::sighash::{self, Outputs, SIGHASH_ANYONECANPAY, SIGHASH_DEFAULT, SigVersion, Sighashes, TaprootSpend};
use super::{signature, verify_script};

/// Answers what a script asks of its transaction. One that answers without having checked must check later, and run
/// the input again if it was wrong: a script may demand that a signature be invalid.
pub trait Checker {
    /// Whether `signature`, its hash type byte included, is one of `key` over `script_code`. Empty, it is not.
    fn check_ecdsa(&self, signature: &[u8], key: &[u8], script_code: &[u8], version: SigVersion) -> bool;

    /// Fails unless `signature`, of 64 bytes or 65 with a hash type byte, is one of the x-only `key`.
    fn check_schnorr(&self, signature: &[u8], key: &[u8; 32], spend: &TaprootSpend) -> Result<(), ScriptError>;

    /// Whether the transaction is locked at least until `lock`, never negative (BIP65).
    fn check_lock_time(&self, lock: i64) -> bool;

    /// Whether the input is locked at least for `lock` after the spent output, never negative (BIP112).
    fn check_sequence(&self, lock: i64) -> bool;
}

/// Whether input `index` of a transaction may spend its output under `flags`. Signatures found in `cache` are not
/// checked again; valid ones are put there.
///
/// # Panics
/// When the transaction has no such input.
pub fn verify_input(
    sighashes: &Sighashes<'_>,
    index: usize,
    flags: Flags,
    cache: Option<&VerdictCache>,
) -> Result<(), ScriptError> {
    let (input, coin) = (&sighashes.transaction().input[index], &sighashes.spent()[index]);
    let checker = TransactionChecker::new(sighashes, index, cache);
    verify_script(&input.script_sig, coin.script_pubkey(), &input.witness, flags, &checker)
}

/// Answers for one input of a transaction. Made anew for each input.
pub struct TransactionChecker<'a> {
    sighashes: &'a Sighashes<'a>,
    index: usize,
    cache: Option<&'a VerdictCache>,
    /// Hashing behind all but the type, by what the type commits to: the signatures of one script share most of it.
    midstates: RefCell<SmallVec<[Midstate; 1]>>,
    /// Hash of the output that SINGLE signatures of taproot commit to.
    single_output: OnceCell<[u8; 32]>,
}

struct Midstate {
    commits_to: (bool, Outputs),
    script_code: SmallVec<[u8; 128]>,
    hasher: Sha256,
}

impl<'a> TransactionChecker<'a> {
    /// A checker for input `index`.
    pub fn new(sighashes: &'a Sighashes<'a>, index: usize, cache: Option<&'a VerdictCache>) -> TransactionChecker<'a> {
        let (midstates, single_output) = (RefCell::default(), OnceCell::new());
        TransactionChecker { sighashes, index, cache, midstates, single_output }
    }

    /// The hash that an ECDSA signature of this type signs. Without the midstates, an input with many signatures would
    /// hash a large transaction many times over.
    fn ecdsa_sighash(&self, script_code: &[u8], hash_type: u32, version: SigVersion) -> [u8; 32] {
        let anyone_can_pay = hash_type & u32::from(SIGHASH_ANYONECANPAY) != 0;
        let commits_to = (anyone_can_pay, sighash::output_type(hash_type));
        let mut midstates = self.midstates.borrow_mut();
        let known = midstates.iter().position(|known| known.commits_to == commits_to);
        if let Some(at) = known {
            if *midstates[at].script_code == *script_code {
                return sighash::finish(midstates[at].hasher.clone(), hash_type);
            }
            midstates.swap_remove(at);
        }
        let hasher = match version {
            SigVersion::WitnessV0 => self.sighashes.witness_v0_midstate(self.index, script_code, hash_type),
            _ => {
                let transaction = self.sighashes.transaction();
                match sighash::legacy_midstate(transaction, self.index, script_code, hash_type) {
                    Some(hasher) => hasher,
                    None => return sighash::SINGLE_BUG,
                }
            }
        };
        midstates.push(Midstate { commits_to, script_code: script_code.into(), hasher: hasher.clone() });
        sighash::finish(hasher, hash_type)
    }

    fn remembered(&self, kind: u8, parts: [&[u8]; 3], check: impl FnOnce() -> bool) -> bool {
        let Some(cache) = self.cache else { return check() };
        let key = cache.signature_key(kind, parts);
        if cache.contains(&key) {
            return true;
        }
        let valid = check();
        if valid {
            cache.insert(&key);
        }
        valid
    }
}

impl Checker for TransactionChecker<'_> {
    fn check_ecdsa(&self, signature: &[u8], key: &[u8], script_code: &[u8], version: SigVersion) -> bool {
        let Some((hash_type, signature)) = signature.split_last() else { return false };
        let message = self.ecdsa_sighash(script_code, u32::from(*hash_type), version);
        self.remembered(b'E', [&message, key, signature], || signature::verify_ecdsa(key, &message, signature))
    }

    fn check_schnorr(&self, signature: &[u8], key: &[u8; 32], spend: &TaprootSpend) -> Result<(), ScriptError> {
        let (signature, hash_type) = match signature.len() {
            64 => (signature, SIGHASH_DEFAULT),
            65 if signature[64] == SIGHASH_DEFAULT => return Err(ScriptError::SchnorrSigHashtype),
            65 => (&signature[..64], signature[64]),
            _ => return Err(ScriptError::SchnorrSigSize),
        };
        let single_output = |output: &_| *self.single_output.get_or_init(|| sighash::output_hash(output));
        let message = self.sighashes.taproot_with(self.index, hash_type, spend, single_output);
        let message = message.ok_or(ScriptError::SchnorrSigHashtype)?;
        let whole = signature.try_into().expect("both arms leave 64 bytes");
        if self.remembered(b'S', [&message, key, signature], || signature::verify_schnorr(key, &message, whole)) {
            Ok(())
        } else {
            Err(ScriptError::SchnorrSig)
        }
    }

    fn check_lock_time(&self, lock: i64) -> bool {
        let transaction = self.sighashes.transaction();
        let own = i64::from(transaction.lock_time.to_consensus_u32());
        let threshold = i64::from(LOCKTIME_THRESHOLD);
        // Heights compare with heights, times with times; a final input switches the lock time off.
        (own < threshold) == (lock < threshold)
            && lock <= own
            && transaction.input[self.index].sequence.0 != SEQUENCE_FINAL
    }

    fn check_sequence(&self, lock: i64) -> bool {
        let transaction = self.sighashes.transaction();
        let own = transaction.input[self.index].sequence.0;
        // The version compares as an unsigned number.
        if transaction.version.0.cast_unsigned() < 2 || own & SEQUENCE_LOCKTIME_DISABLE_FLAG != 0 {
            return false;
        }
        let mask = i64::from(SEQUENCE_LOCKTIME_TYPE_FLAG | SEQUENCE_LOCKTIME_MASK);
        let (own, lock) = (i64::from(own) & mask, lock & mask);
        let is_time = |value: i64| value >= i64::from(SEQUENCE_LOCKTIME_TYPE_FLAG);
        is_time(own) == is_time(lock) && lock <= own
    }
}

/// The sequence number of an input that switches the lock time off.
const SEQUENCE_FINAL: u32 = 0xffff_ffff;
/// Lock times below this are heights, the others are times. Core: `LOCKTIME_THRESHOLD`.
pub const LOCKTIME_THRESHOLD: u32 = 500_000_000;
/// A sequence number with this bit is no relative lock time (BIP68).
pub const SEQUENCE_LOCKTIME_DISABLE_FLAG: u32 = 1 << 31;
/// A relative lock time with this bit is a time, the others are heights (BIP68).
pub const SEQUENCE_LOCKTIME_TYPE_FLAG: u32 = 1 << 22;
/// The bits of a sequence number that hold the relative lock time (BIP68).
pub const SEQUENCE_LOCKTIME_MASK: u32 = 0xffff;
