//! The operations that check signatures, with the oddities of the original release that are consensus. What a
//! signature signs, the checker knows.

use std::borrow::Cow;

use smallvec::{SmallVec, smallvec};

use super::{Context, MAX_PUBKEYS_PER_MULTISIG, Machine, VALIDATION_WEIGHT_PER_SIGOP_PASSED};
use crate::script::Checker;
use crate::script::error::ScriptError;
use crate::script::flags::Flags;
use crate::script::opcode::{Cursor, OP_PUSHDATA1, OP_PUSHDATA2};
use crate::script::sighash::SigVersion;
use crate::script::signature::{check_key_encoding, check_signature_encoding};
use crate::script::stack::Element;

impl<'a, C: Checker> Machine<'_, 'a, '_, C> {
    /// Whether the signature is a valid one of the key. Fails where the script must fail.
    pub(super) fn check_signature(&mut self, signature: Element<'a>, key: Element<'a>) -> Result<bool, ScriptError> {
        if self.context.version == SigVersion::Tapscript {
            return self.check_tapscript_signature(&signature, &key);
        }
        let Context { flags, version, checker, .. } = self.context;
        let mut code = Cow::Borrowed(&self.script[self.code_start..]);
        if version == SigVersion::Base {
            self.delete_signature(&mut code, &signature)?;
        }
        check_signature_encoding(&signature, flags)?;
        check_key_encoding(&key, flags, version)?;
        let valid = checker.check_ecdsa(&signature, &key, &code, version);
        if !valid && flags.contains(Flags::NULLFAIL) && !signature.is_empty() {
            return Err(ScriptError::SigNullFail);
        }
        Ok(valid)
    }

    /// An empty signature is an invalid one; any other must be valid, and is paid for by witness weight. A key of an
    /// unknown length takes every signature, so that a later soft fork may give it a meaning (BIP342).
    fn check_tapscript_signature(&mut self, signature: &[u8], key: &[u8]) -> Result<bool, ScriptError> {
        let Context { flags, checker, spend, .. } = self.context;
        let given = !signature.is_empty();
        if given {
            self.context.weight_left -= VALIDATION_WEIGHT_PER_SIGOP_PASSED;
            if self.context.weight_left < 0 {
                return Err(ScriptError::TapscriptValidationWeight);
            }
        }
        if key.is_empty() {
            return Err(ScriptError::TapscriptEmptyPubkey);
        }
        if let Ok(key) = key.try_into() {
            if given {
                checker.check_schnorr(signature, key, &spend)?;
            }
        } else if flags.contains(Flags::DISCOURAGE_UPGRADABLE_PUBKEYTYPE) {
            return Err(ScriptError::DiscourageUpgradablePubkeyType);
        }
        Ok(given)
    }

    /// Removes the pushes of a signature from the code that it is to sign, as the original release did.
    fn delete_signature(&self, code: &mut Cow<'_, [u8]>, signature: &[u8]) -> Result<(), ScriptError> {
        if let Some(rest) = find_and_delete(code, signature) {
            if self.context.flags.contains(Flags::CONST_SCRIPTCODE) {
                return Err(ScriptError::SigFindAndDelete);
            }
            *code = Cow::Owned(rest);
        }
        Ok(())
    }

    /// Takes the arguments of a CHECKMULTISIG: whether each signature is valid for one of the keys, in their order.
    pub(super) fn check_multisig(&mut self) -> Result<bool, ScriptError> {
        let Context { flags, version, checker, .. } = self.context;
        if version == SigVersion::Tapscript {
            return Err(ScriptError::TapscriptCheckMultisig);
        }
        // From the top: key count, keys, signature count, signatures, one more.
        let key_count = usize::try_from(self.number(1)?).ok().filter(|count| *count <= MAX_PUBKEYS_PER_MULTISIG);
        let key_count = key_count.ok_or(ScriptError::PubkeyCount)?;
        self.count_ops(key_count)?;
        let first_key = 2;
        let signature_count = usize::try_from(self.number(first_key + key_count)?).ok();
        let signature_count = signature_count.filter(|count| *count <= key_count).ok_or(ScriptError::SigCount)?;
        let first_signature = first_key + key_count + 1;
        let extra = first_signature + signature_count;
        self.stack.need(extra)?;

        let mut code = Cow::Borrowed(&self.script[self.code_start..]);
        if version == SigVersion::Base {
            for depth in first_signature..extra {
                self.delete_signature(&mut code, &self.stack.peek(depth)?)?;
            }
        }
        let (mut key_at, mut signature_at) = (first_key, first_signature);
        // While there are as many keys left as signatures. Which encodings are looked at, and in which order, is consensus.
        while signature_at < extra && extra - signature_at <= first_key + key_count - key_at {
            let (signature, key) = (self.stack.peek(signature_at)?, self.stack.peek(key_at)?);
            check_signature_encoding(&signature, flags)?;
            check_key_encoding(&key, flags, version)?;
            if checker.check_ecdsa(&signature, &key, &code, version) {
                signature_at += 1;
            }
            key_at += 1;
        }
        let valid = signature_at == extra;
        if !valid && flags.contains(Flags::NULLFAIL) {
            for depth in first_signature..extra {
                if !self.stack.peek(depth)?.is_empty() {
                    return Err(ScriptError::SigNullFail);
                }
            }
        }
        // The original release takes one element too many.
        if flags.contains(Flags::NULLDUMMY) && !self.stack.peek(extra)?.is_empty() {
            return Err(ScriptError::SigNullDummy);
        }
        self.stack.drop(extra)?;
        Ok(valid)
    }
}

/// `code` without every operation boundary's run of pushes of `signature`; `None` if there is none.
pub(super) fn find_and_delete(code: &[u8], signature: &[u8]) -> Option<Vec<u8>> {
    let prefix = push_prefix(signature.len());
    let is_push = |rest: &[u8]| rest.strip_prefix(&*prefix).is_some_and(|rest| rest.starts_with(signature));
    let mut kept: Option<Vec<u8>> = None;
    let (mut cursor, mut start) = (Cursor::new(code), 0);
    loop {
        let end = cursor.position();
        while is_push(&code[cursor.position()..]) {
            cursor.advance(prefix.len() + signature.len());
        }
        if cursor.position() > end {
            kept.get_or_insert_default().extend_from_slice(&code[start..end]);
            start = cursor.position();
        }
        if !matches!(cursor.next(), Some(Ok(_))) {
            break;
        }
    }
    if let Some(kept) = &mut kept {
        kept.extend_from_slice(&code[start..]);
    }
    kept
}

/// What comes before `length` bytes that a script pushes, in the form that Core gives a signature to look for.
pub(in crate::script) fn push_prefix(length: usize) -> SmallVec<[u8; 5]> {
    let bytes = (length as u32).to_le_bytes();
    match length {
        ..0x4c => smallvec![bytes[0]],
        0x4c..=0xff => smallvec![OP_PUSHDATA1, bytes[0]],
        _ => smallvec![OP_PUSHDATA2, bytes[0], bytes[1]], // no element is longer than 520 bytes
    }
}
