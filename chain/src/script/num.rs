//! Numbers on the stack: little-endian bytes with a sign bit. Knows no opcode.

use super::error::ScriptError;
use super::stack::Element;

/// The longest number that arithmetic takes, in bytes.
pub const MAX_NUM_SIZE: usize = 4;

/// Reads a number of at most `longest` bytes (5 at the most, so that it always fits); with `minimal` it must be
/// written in the shortest way.
pub fn decode(bytes: &[u8], minimal: bool, longest: usize) -> Result<i64, ScriptError> {
    let Some((last, rest)) = bytes.split_last() else { return Ok(0) };
    if bytes.len() > longest {
        return Err(ScriptError::ScriptNum);
    }
    // A last byte without magnitude is only there to carry the sign past a set top bit.
    if minimal && last & 0x7f == 0 && rest.last().is_none_or(|before| before & 0x80 == 0) {
        return Err(ScriptError::ScriptNum);
    }
    let magnitude = rest.iter().rev().fold(i64::from(last & 0x7f), |sum, byte| sum << 8 | i64::from(*byte));
    Ok(if last & 0x80 == 0 { magnitude } else { -magnitude })
}

/// Writes a number in the shortest way.
pub fn encode(value: i64) -> Element<'static> {
    let mut bytes = [0; 9];
    let mut length = 0;
    let mut magnitude = value.unsigned_abs();
    while magnitude > 0 {
        bytes[length] = (magnitude & 0xff) as u8;
        magnitude >>= 8;
        length += 1;
    }
    if length > 0 && bytes[length - 1] & 0x80 != 0 {
        length += 1;
    }
    if value < 0 {
        bytes[length - 1] |= 0x80;
    }
    Element::owned(&bytes[..length])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_back_and_have_one_shortest_form() {
        for value in
            [0, 1, -1, 127, 128, -128, 255, 256, -32768, 0x7fff_ffff, -0x7fff_ffff, 0x8000_0000, 0x7f_ffff_ffff]
        {
            let written = encode(value);
            assert_eq!(decode(&written, true, 5), Ok(value), "{value} as {:?}", &*written);
        }
        for (bytes, value) in [(&[0x80][..], 0), (&[0, 0], 0), (&[5, 0], 5), (&[5, 0x80], -5), (&[0xff, 0x80], -255)] {
            assert_eq!(decode(bytes, false, 4), Ok(value), "{bytes:?}");
            let minimal = decode(bytes, true, 4);
            assert_eq!(minimal, if value == -255 { Ok(value) } else { Err(ScriptError::ScriptNum) }, "{bytes:?}");
        }
        assert_eq!(decode(&[1, 2, 3, 4, 5], false, MAX_NUM_SIZE), Err(ScriptError::ScriptNum));
    }
}
