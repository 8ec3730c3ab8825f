//! The opcodes under Core's names, and the cursor that reads a script operation by operation. Executes nothing.

macro_rules! opcodes {
    ($($name:ident = $value:literal,)*) => {
        $(#[allow(missing_docs, reason = "the name is Core's")] pub const $name: u8 = $value;)*

        /// The name of an operation as Core prints it (`OP_CHECKSIG`; for values that have none, `OP_UNKNOWN`).
        pub const fn name(opcode: u8) -> &'static str {
            match opcode {
                $($value => stringify!($name),)*
                _ => "OP_UNKNOWN",
            }
        }
    };
}

opcodes! {
    OP_0 = 0x00, OP_PUSHDATA1 = 0x4c, OP_PUSHDATA2 = 0x4d, OP_PUSHDATA4 = 0x4e, OP_1NEGATE = 0x4f,
    OP_RESERVED = 0x50, OP_1 = 0x51, OP_2 = 0x52, OP_3 = 0x53, OP_4 = 0x54, OP_5 = 0x55, OP_6 = 0x56, OP_7 = 0x57,
    OP_8 = 0x58, OP_9 = 0x59, OP_10 = 0x5a, OP_11 = 0x5b, OP_12 = 0x5c, OP_13 = 0x5d, OP_14 = 0x5e, OP_15 = 0x5f,
    OP_16 = 0x60,
    OP_NOP = 0x61, OP_VER = 0x62, OP_IF = 0x63, OP_NOTIF = 0x64, OP_VERIF = 0x65, OP_VERNOTIF = 0x66, OP_ELSE = 0x67,
    OP_ENDIF = 0x68, OP_VERIFY = 0x69, OP_RETURN = 0x6a,
    OP_TOALTSTACK = 0x6b, OP_FROMALTSTACK = 0x6c, OP_2DROP = 0x6d, OP_2DUP = 0x6e, OP_3DUP = 0x6f, OP_2OVER = 0x70,
    OP_2ROT = 0x71, OP_2SWAP = 0x72, OP_IFDUP = 0x73, OP_DEPTH = 0x74, OP_DROP = 0x75, OP_DUP = 0x76, OP_NIP = 0x77,
    OP_OVER = 0x78, OP_PICK = 0x79, OP_ROLL = 0x7a, OP_ROT = 0x7b, OP_SWAP = 0x7c, OP_TUCK = 0x7d,
    OP_CAT = 0x7e, OP_SUBSTR = 0x7f, OP_LEFT = 0x80, OP_RIGHT = 0x81, OP_SIZE = 0x82,
    OP_INVERT = 0x83, OP_AND = 0x84, OP_OR = 0x85, OP_XOR = 0x86, OP_EQUAL = 0x87, OP_EQUALVERIFY = 0x88,
    OP_RESERVED1 = 0x89, OP_RESERVED2 = 0x8a,
    OP_1ADD = 0x8b, OP_1SUB = 0x8c, OP_2MUL = 0x8d, OP_2DIV = 0x8e, OP_NEGATE = 0x8f, OP_ABS = 0x90, OP_NOT = 0x91,
    OP_0NOTEQUAL = 0x92, OP_ADD = 0x93, OP_SUB = 0x94, OP_MUL = 0x95, OP_DIV = 0x96, OP_MOD = 0x97, OP_LSHIFT = 0x98,
    OP_RSHIFT = 0x99, OP_BOOLAND = 0x9a, OP_BOOLOR = 0x9b, OP_NUMEQUAL = 0x9c, OP_NUMEQUALVERIFY = 0x9d,
    OP_NUMNOTEQUAL = 0x9e, OP_LESSTHAN = 0x9f, OP_GREATERTHAN = 0xa0, OP_LESSTHANOREQUAL = 0xa1,
    OP_GREATERTHANOREQUAL = 0xa2, OP_MIN = 0xa3, OP_MAX = 0xa4, OP_WITHIN = 0xa5,
    OP_RIPEMD160 = 0xa6, OP_SHA1 = 0xa7, OP_SHA256 = 0xa8, OP_HASH160 = 0xa9, OP_HASH256 = 0xaa,
    OP_CODESEPARATOR = 0xab, OP_CHECKSIG = 0xac, OP_CHECKSIGVERIFY = 0xad, OP_CHECKMULTISIG = 0xae,
    OP_CHECKMULTISIGVERIFY = 0xaf,
    OP_NOP1 = 0xb0, OP_CHECKLOCKTIMEVERIFY = 0xb1, OP_CHECKSEQUENCEVERIFY = 0xb2, OP_NOP4 = 0xb3, OP_NOP5 = 0xb4,
    OP_NOP6 = 0xb5, OP_NOP7 = 0xb6, OP_NOP8 = 0xb7, OP_NOP9 = 0xb8, OP_NOP10 = 0xb9, OP_CHECKSIGADD = 0xba,
    OP_INVALIDOPCODE = 0xff,
}

/// Whether the operation is disabled (CVE-2010-5137): a script that holds it fails even where it is not executed.
pub(crate) const fn is_disabled(opcode: u8) -> bool {
    matches!(
        opcode,
        OP_CAT..=OP_RIGHT | OP_INVERT..=OP_XOR | OP_2MUL | OP_2DIV | OP_MUL..=OP_RSHIFT
    )
}

/// Whether the operation makes a tapscript succeed at once ([BIP-0342]).
///
/// [BIP-0342]: https://github.com/bitcoin/bips/blob/master/bip-0342.mediawiki
pub const fn is_op_success(opcode: u8) -> bool {
    matches!(opcode, 80 | 98 | 126..=129 | 131..=134 | 137..=138 | 141..=142 | 149..=153 | 187..=254)
}

/// One operation as it stands in a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Op<'a> {
    /// Its code.
    pub code: u8,
    /// What it pushes; empty for all but the direct pushes and the three PUSHDATA.
    pub data: &'a [u8],
}

/// A push that reaches beyond the end of the script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncated;

/// Reads a script from its start.
#[derive(Clone, Copy, Debug)]
pub struct Cursor<'a> {
    script: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// A cursor before the first operation of `script`.
    pub const fn new(script: &'a [u8]) -> Cursor<'a> {
        Cursor { script, at: 0 }
    }

    /// Where the next operation begins. After [`Truncated`]: behind the opcode and its length, as in Core.
    pub const fn position(&self) -> usize {
        self.at
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Truncated> {
        let taken = self.script[self.at..].get(..count).ok_or(Truncated)?;
        self.at += count;
        Ok(taken)
    }

    fn read(&mut self) -> Result<Op<'a>, Truncated> {
        let code = self.take(1)?[0];
        let length = match code {
            OP_PUSHDATA1 => usize::from(self.take(1)?[0]),
            OP_PUSHDATA2 => self.take(2)?.iter().rev().fold(0, |sum, byte| sum << 8 | usize::from(*byte)),
            OP_PUSHDATA4 => self.take(4)?.iter().rev().fold(0, |sum, byte| sum << 8 | usize::from(*byte)),
            direct if direct < OP_PUSHDATA1 => usize::from(direct),
            _ => 0,
        };
        Ok(Op { code, data: self.take(length)? })
    }

    /// Moves the cursor over a run of bytes that the caller knows to be there.
    pub(super) fn advance(&mut self, count: usize) {
        self.at += count;
    }
}

impl<'a> Iterator for Cursor<'a> {
    type Item = Result<Op<'a>, Truncated>;

    fn next(&mut self) -> Option<Self::Item> {
        (self.at < self.script.len()).then(|| self.read())
    }
}

/// Whether the script only pushes. OP_RESERVED counts as a push, as in Core.
pub(crate) fn is_push_only(script: &[u8]) -> bool {
    Cursor::new(script).all(|op| op.is_ok_and(|op| op.code <= OP_16))
}

/// Whether `op`, a direct push or a PUSHDATA, is the shortest way to push its data (BIP62 rule 3).
pub(crate) fn is_minimal_push(op: Op<'_>) -> bool {
    match op.data {
        [] => op.code == OP_0,
        [1..=16 | 0x81] => false,
        data => match data.len() {
            length @ ..=75 => usize::from(op.code) == length,
            76..=255 => op.code == OP_PUSHDATA1,
            256..=65535 => op.code == OP_PUSHDATA2,
            _ => true,
        },
    }
}

/// The version and the program, if the whole script is a witness program: a small number, then 2 to 40 bytes (BIP141).
pub fn witness_program(script: &[u8]) -> Option<(u8, &[u8])> {
    match script {
        [version @ (OP_0 | OP_1..=OP_16), length, program @ ..]
            if (2..=40).contains(&program.len()) && usize::from(*length) == program.len() =>
        {
            Some((version.saturating_sub(OP_1 - 1), program))
        }
        _ => None,
    }
}

/// Whether the script is pay-to-script-hash (BIP16): `HASH160 <20 bytes> EQUAL`, that push written as one byte.
pub fn is_p2sh(script: &[u8]) -> bool {
    matches!(script, [OP_HASH160, 20, middle @ .., OP_EQUAL] if middle.len() == 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_push_beyond_the_end_leaves_the_cursor_behind_its_length() {
        for (script, position) in [(&[5, 1, 2][..], 1), (&[OP_PUSHDATA2, 9], 1), (&[OP_PUSHDATA2, 9, 0, 1], 3)] {
            let mut cursor = Cursor::new(script);
            assert_eq!((cursor.next(), cursor.position()), (Some(Err(Truncated)), position), "{script:?}");
        }
    }

    #[test]
    fn a_witness_program_is_a_small_number_and_one_direct_push() {
        assert_eq!(witness_program(&[OP_0, 2, 7, 8]), Some((0, &[7, 8][..])));
        assert_eq!(witness_program(&[OP_16, 2, 7, 8]), Some((16, &[7, 8][..])));
        for script in [&[OP_1NEGATE, 2, 7, 8][..], &[OP_1, 1, 7], &[OP_1, 3, 7, 8], &[OP_1, 2, 7, 8, 9], &[OP_1]] {
            assert_eq!(witness_program(script), None, "{script:?}");
        }
        assert_eq!(witness_program(&[&[OP_1, 41][..], &[0; 41]].concat()), None, "more than 40 bytes");
    }
}
