//! The stack machine: executes one script. What a signature or a lock time is worth, it asks the checker; it knows no
//! transaction.

mod checksig;

use bitcoin::hashes::{Hash, ripemd160, sha1};
use sha2::{Digest, Sha256};

use super::error::ScriptError;
use super::flags::Flags;
use super::num::{self, MAX_NUM_SIZE};
use super::opcode::*;
use super::sighash::{SigVersion, TaprootSpend};
use super::stack::{Element, Stack};
use super::{Checker, SEQUENCE_LOCKTIME_DISABLE_FLAG};

pub(super) use checksig::push_prefix;

/// The longest element a script may push, in bytes.
pub const MAX_SCRIPT_ELEMENT_SIZE: usize = 520;
/// The most operations above OP_16 in a script before tapscript; keys of CHECKMULTISIG count.
pub const MAX_OPS_PER_SCRIPT: usize = 201;
/// The most keys of a CHECKMULTISIG.
pub const MAX_PUBKEYS_PER_MULTISIG: usize = 20;
/// The longest script before tapscript, in bytes.
pub const MAX_SCRIPT_SIZE: usize = 10_000;
/// The most elements on stack and alternative stack together.
pub const MAX_STACK_SIZE: usize = 1000;
/// What each executed tapscript signature takes of the witness weight (BIP342).
pub const VALIDATION_WEIGHT_PER_SIGOP_PASSED: i64 = 50;
/// What a tapscript may spend on signatures beyond the weight of its witness (BIP342).
pub const VALIDATION_WEIGHT_OFFSET: i64 = 50;

/// What executing a script depends on besides the script and its stack.
pub(super) struct Context<'c, C> {
    pub flags: Flags,
    pub version: SigVersion,
    pub checker: &'c C,
    /// Tapscript only: what its signatures commit to.
    pub spend: TaprootSpend,
    /// Tapscript only: the signature checks that the witness still pays for.
    pub weight_left: i64,
}

impl<'c, C> Context<'c, C> {
    pub fn new(flags: Flags, version: SigVersion, checker: &'c C) -> Context<'c, C> {
        Context { flags, version, checker, spend: TaprootSpend { annex: None, leaf: None }, weight_left: 0 }
    }
}

/// Executes `script` on `stack`.
pub(super) fn evaluate<'a, C: Checker>(
    stack: &mut Stack<'a>,
    script: &'a [u8],
    context: Context<'_, C>,
) -> Result<(), ScriptError> {
    if context.version != SigVersion::Tapscript && script.len() > MAX_SCRIPT_SIZE {
        return Err(ScriptError::ScriptSize);
    }
    let alternative = Stack::default();
    Machine { stack, alternative, conditions: Conditions::default(), op_count: 0, code_start: 0, script, context }.run()
}

/// The open IFs. Only their number and the outermost one that is not taken can be told apart from outside.
#[derive(Default)]
struct Conditions {
    open: usize,
    first_false: Option<usize>,
}

impl Conditions {
    fn all_true(&self) -> bool {
        self.first_false.is_none()
    }

    fn push(&mut self, taken: bool) {
        if !taken && self.first_false.is_none() {
            self.first_false = Some(self.open);
        }
        self.open += 1;
    }

    fn innermost(&self) -> Result<usize, ScriptError> {
        self.open.checked_sub(1).ok_or(ScriptError::UnbalancedConditional)
    }

    fn toggle(&mut self) -> Result<(), ScriptError> {
        let innermost = self.innermost()?;
        match self.first_false {
            None => self.first_false = Some(innermost),
            Some(first) if first == innermost => self.first_false = None,
            Some(_) => {}
        }
        Ok(())
    }

    fn pop(&mut self) -> Result<(), ScriptError> {
        self.open = self.innermost()?;
        self.first_false = self.first_false.filter(|first| *first < self.open);
        Ok(())
    }
}

struct Machine<'s, 'a, 'c, C> {
    stack: &'s mut Stack<'a>,
    alternative: Stack<'a>,
    conditions: Conditions,
    op_count: usize,
    /// Behind the last executed OP_CODESEPARATOR: where the code that signatures commit to starts.
    code_start: usize,
    script: &'a [u8],
    context: Context<'c, C>,
}

impl<'a, C: Checker> Machine<'_, 'a, '_, C> {
    fn run(mut self) -> Result<(), ScriptError> {
        let (flags, tapscript) = (self.context.flags, self.context.version == SigVersion::Tapscript);
        let const_code = flags.contains(Flags::CONST_SCRIPTCODE) && self.context.version == SigVersion::Base;
        let mut cursor = Cursor::new(self.script);
        let mut position = 0;
        while let Some(read) = cursor.next() {
            let op = read.map_err(|_| ScriptError::BadOpcode)?;
            if op.data.len() > MAX_SCRIPT_ELEMENT_SIZE {
                return Err(ScriptError::PushSize);
            }
            if !tapscript && op.code > OP_16 {
                self.count_ops(1)?;
            }
            if is_disabled(op.code) {
                return Err(ScriptError::DisabledOpcode);
            }
            if op.code == OP_CODESEPARATOR && const_code {
                return Err(ScriptError::OpCodeSeparator);
            }
            let executed = self.conditions.all_true();
            match op.code {
                OP_IF..=OP_ENDIF => self.conditional(op.code, executed)?,
                _ if !executed => {}
                ..=OP_PUSHDATA4 => {
                    if flags.contains(Flags::MINIMALDATA) && !is_minimal_push(op) {
                        return Err(ScriptError::MinimalData);
                    }
                    self.stack.push(Element::Borrowed(op.data));
                }
                OP_CODESEPARATOR => {
                    self.code_start = cursor.position();
                    if let Some(leaf) = &mut self.context.spend.leaf {
                        leaf.code_separator = position;
                    }
                }
                code => self.execute(code)?,
            }
            if self.stack.len() + self.alternative.len() > MAX_STACK_SIZE {
                return Err(ScriptError::StackSize);
            }
            position += 1;
        }
        if self.conditions.open > 0 { Err(ScriptError::UnbalancedConditional) } else { Ok(()) }
    }

    fn count_ops(&mut self, count: usize) -> Result<(), ScriptError> {
        self.op_count += count;
        if self.op_count > MAX_OPS_PER_SCRIPT { Err(ScriptError::OpCount) } else { Ok(()) }
    }

    fn conditional(&mut self, code: u8, executed: bool) -> Result<(), ScriptError> {
        match code {
            OP_IF | OP_NOTIF => {
                let taken = executed && self.condition()? == (code == OP_IF);
                self.conditions.push(taken);
                Ok(())
            }
            OP_ELSE => self.conditions.toggle(),
            OP_ENDIF => self.conditions.pop(),
            _ => Err(ScriptError::BadOpcode), // VERIF and VERNOTIF fail even where they are not executed
        }
    }

    fn condition(&mut self) -> Result<bool, ScriptError> {
        let value = self.stack.peek(1)?;
        if !matches!(*value, [] | [1]) {
            match self.context.version {
                SigVersion::Tapscript => return Err(ScriptError::TapscriptMinimalIf),
                SigVersion::WitnessV0 if self.context.flags.contains(Flags::MINIMALIF) => {
                    return Err(ScriptError::MinimalIf);
                }
                _ => {}
            }
        }
        self.stack.drop(1)?;
        Ok(value.is_true())
    }

    fn execute(&mut self, code: u8) -> Result<(), ScriptError> {
        match code {
            OP_1NEGATE => self.stack.push(num::encode(-1)),
            OP_1..=OP_16 => self.stack.push(num::encode(i64::from(code - OP_1) + 1)),
            OP_NOP => {}
            OP_CHECKLOCKTIMEVERIFY => self.check_lock_time()?,
            OP_CHECKSEQUENCEVERIFY => self.check_sequence()?,
            OP_NOP1 | OP_NOP4..=OP_NOP10 => {
                if self.context.flags.contains(Flags::DISCOURAGE_UPGRADABLE_NOPS) {
                    return Err(ScriptError::DiscourageUpgradableNops);
                }
            }
            OP_VERIFY => self.verify(ScriptError::Verify)?,
            OP_RETURN => return Err(ScriptError::OpReturn),
            OP_TOALTSTACK..=OP_TUCK | OP_SIZE => self.rearrange(code)?,
            OP_EQUAL | OP_EQUALVERIFY => {
                let equal = *self.stack.peek(2)? == *self.stack.peek(1)?;
                self.replace(2, Element::truth(equal))?;
                if code == OP_EQUALVERIFY {
                    self.verify(ScriptError::EqualVerify)?;
                }
            }
            OP_1ADD | OP_1SUB | OP_NEGATE..=OP_0NOTEQUAL => self.unary(code)?,
            OP_ADD | OP_SUB | OP_BOOLAND..=OP_MAX => self.binary(code)?,
            OP_WITHIN => {
                self.stack.need(3)?;
                let (value, low, high) = (self.number(3)?, self.number(2)?, self.number(1)?);
                self.replace(3, Element::truth(low <= value && value < high))?;
            }
            OP_RIPEMD160..=OP_HASH256 => self.hash(code)?,
            OP_CHECKSIG | OP_CHECKSIGVERIFY => {
                self.stack.need(2)?;
                let valid = self.check_signature(self.stack.peek(2)?, self.stack.peek(1)?)?;
                self.replace(2, Element::truth(valid))?;
                if code == OP_CHECKSIGVERIFY {
                    self.verify(ScriptError::CheckSigVerify)?;
                }
            }
            OP_CHECKSIGADD => {
                if self.context.version != SigVersion::Tapscript {
                    return Err(ScriptError::BadOpcode);
                }
                self.stack.need(3)?;
                let count = self.number(2)?;
                let valid = self.check_signature(self.stack.peek(3)?, self.stack.peek(1)?)?;
                self.replace(3, num::encode(count + i64::from(valid)))?;
            }
            OP_CHECKMULTISIG | OP_CHECKMULTISIGVERIFY => {
                let valid = self.check_multisig()?;
                self.stack.push(Element::truth(valid));
                if code == OP_CHECKMULTISIGVERIFY {
                    self.verify(ScriptError::CheckMultisigVerify)?;
                }
            }
            _ => return Err(ScriptError::BadOpcode),
        }
        Ok(())
    }

    /// The number at `depth`.
    fn number(&self, depth: usize) -> Result<i64, ScriptError> {
        num::decode(&self.stack.peek(depth)?, self.context.flags.contains(Flags::MINIMALDATA), MAX_NUM_SIZE)
    }

    /// Puts `result` in the place of the upper `count` elements.
    fn replace(&mut self, count: usize, result: Element<'a>) -> Result<(), ScriptError> {
        self.stack.drop(count)?;
        self.stack.push(result);
        Ok(())
    }

    /// Takes the top, which must be true.
    fn verify(&mut self, otherwise: ScriptError) -> Result<(), ScriptError> {
        if self.stack.pop()?.is_true() { Ok(()) } else { Err(otherwise) }
    }

    /// The operand of a lock time operation: five bytes, so that it reaches past the year 2038; it stays on the stack.
    fn lock(&self) -> Result<i64, ScriptError> {
        let lock = num::decode(&self.stack.peek(1)?, self.context.flags.contains(Flags::MINIMALDATA), 5)?;
        if lock < 0 { Err(ScriptError::NegativeLocktime) } else { Ok(lock) }
    }

    fn check_lock_time(&self) -> Result<(), ScriptError> {
        if self.context.flags.contains(Flags::CHECKLOCKTIMEVERIFY)
            && !self.context.checker.check_lock_time(self.lock()?)
        {
            return Err(ScriptError::UnsatisfiedLocktime);
        }
        Ok(())
    }

    fn check_sequence(&self) -> Result<(), ScriptError> {
        if !self.context.flags.contains(Flags::CHECKSEQUENCEVERIFY) {
            return Ok(());
        }
        let lock = self.lock()?;
        // An operand with the bit asks nothing (BIP112).
        if lock & i64::from(SEQUENCE_LOCKTIME_DISABLE_FLAG) == 0 && !self.context.checker.check_sequence(lock) {
            return Err(ScriptError::UnsatisfiedLocktime);
        }
        Ok(())
    }

    fn rearrange(&mut self, code: u8) -> Result<(), ScriptError> {
        let stack = &mut *self.stack;
        match code {
            OP_TOALTSTACK => self.alternative.push(stack.pop()?),
            OP_FROMALTSTACK => {
                stack.push(self.alternative.pop().map_err(|_| ScriptError::InvalidAltstackOperation)?);
            }
            OP_DROP => stack.drop(1)?,
            OP_2DROP => stack.drop(2)?,
            OP_DUP => stack.copy(1, 1)?,
            OP_2DUP => stack.copy(2, 2)?,
            OP_3DUP => stack.copy(3, 3)?,
            OP_OVER => stack.copy(2, 1)?,
            OP_2OVER => stack.copy(4, 2)?,
            OP_SWAP => stack.roll(2, 1)?,
            OP_2SWAP => stack.roll(4, 2)?,
            OP_ROT => stack.roll(3, 1)?,
            OP_2ROT => stack.roll(6, 2)?,
            OP_IFDUP => {
                if stack.peek(1)?.is_true() {
                    stack.copy(1, 1)?;
                }
            }
            OP_DEPTH => stack.push(num::encode(stack.len() as i64)),
            OP_NIP => {
                stack.roll(2, 1)?;
                stack.drop(1)?;
            }
            OP_TUCK => {
                stack.need(2)?;
                stack.insert(2, stack.peek(1)?)?;
            }
            OP_SIZE => stack.push(num::encode(stack.peek(1)?.len() as i64)),
            _ => {
                // PICK and ROLL
                stack.need(2)?;
                let depth = self.number(1)?;
                self.stack.drop(1)?;
                let depth = usize::try_from(depth).map_err(|_| ScriptError::InvalidStackOperation)? + 1;
                if code == OP_PICK { self.stack.copy(depth, 1)? } else { self.stack.roll(depth, 1)? }
            }
        }
        Ok(())
    }

    fn unary(&mut self, code: u8) -> Result<(), ScriptError> {
        let value = self.number(1)?;
        let result = match code {
            OP_1ADD => value + 1,
            OP_1SUB => value - 1,
            OP_NEGATE => -value,
            OP_ABS => value.abs(),
            OP_NOT => i64::from(value == 0),
            _ => i64::from(value != 0), // 0NOTEQUAL
        };
        self.replace(1, num::encode(result))
    }

    fn binary(&mut self, code: u8) -> Result<(), ScriptError> {
        self.stack.need(2)?;
        let (left, right) = (self.number(2)?, self.number(1)?);
        let result = match code {
            OP_ADD => left + right,
            OP_SUB => left - right,
            OP_BOOLAND => i64::from(left != 0 && right != 0),
            OP_BOOLOR => i64::from(left != 0 || right != 0),
            OP_NUMEQUAL | OP_NUMEQUALVERIFY => i64::from(left == right),
            OP_NUMNOTEQUAL => i64::from(left != right),
            OP_LESSTHAN => i64::from(left < right),
            OP_GREATERTHAN => i64::from(left > right),
            OP_LESSTHANOREQUAL => i64::from(left <= right),
            OP_GREATERTHANOREQUAL => i64::from(left >= right),
            OP_MIN => left.min(right),
            _ => left.max(right), // MAX
        };
        self.replace(2, num::encode(result))?;
        if code == OP_NUMEQUALVERIFY { self.verify(ScriptError::NumEqualVerify) } else { Ok(()) }
    }

    fn hash(&mut self, code: u8) -> Result<(), ScriptError> {
        let data = self.stack.peek(1)?;
        let result = match code {
            OP_RIPEMD160 => Element::owned(ripemd160::Hash::hash(&data).as_byte_array()),
            OP_SHA1 => Element::owned(sha1::Hash::hash(&data).as_byte_array()),
            OP_SHA256 => Element::owned(&Sha256::digest(&*data)),
            OP_HASH160 => Element::owned(ripemd160::Hash::hash(&Sha256::digest(&*data)).as_byte_array()),
            _ => Element::owned(&Sha256::digest(Sha256::digest(&*data))), // HASH256
        };
        self.replace(1, result)
    }
}

#[cfg(test)]
mod tests;
