//! Scripts as text, in the form of Core's vectors: numbers, `0x` raw bytes, 'quoted' pushes and opcode names.

use groat_chain::script::opcode;

/// The bytes of a script: a decimal number is pushed in its shortest form, `0xHEX` stands for itself, a quoted word is
/// pushed, and any other word is an opcode with or without `OP_`.
pub fn assemble(text: &str) -> Result<Vec<u8>, String> {
    let mut script = Vec::new();
    for word in text.split_ascii_whitespace() {
        if let Ok(number) = word.parse::<i64>() {
            push_number(&mut script, number);
        } else if let Some(raw) = word.strip_prefix("0x") {
            script.extend(
                hex::FromHex::from_hex(raw).map(|raw: Vec<u8>| raw).map_err(|error| format!("{word}: {error}"))?,
            );
        } else if let Some(quoted) = word.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')) {
            push(&mut script, quoted.as_bytes());
        } else {
            let name = |code: &u8| opcode::name(*code).trim_start_matches("OP_") == word.trim_start_matches("OP_");
            let code = (opcode::OP_NOP..=opcode::OP_CHECKSIGADD).chain([opcode::OP_RESERVED]).find(name);
            script.push(code.ok_or_else(|| format!("{word} is no opcode"))?);
        }
    }
    Ok(script)
}

/// Appends a number, as the shortest operation that pushes it.
pub fn push_number(script: &mut Vec<u8>, number: i64) {
    match number {
        0 => script.push(opcode::OP_0),
        -1 => script.push(opcode::OP_1NEGATE),
        1..=16 => script.push(opcode::OP_1 - 1 + number as u8),
        _ => {
            let mut bytes = number.unsigned_abs().to_le_bytes().to_vec();
            while bytes.last() == Some(&0) {
                bytes.pop();
            }
            if bytes.last().is_some_and(|last| last & 0x80 != 0) {
                bytes.push(0);
            }
            if number < 0 {
                *bytes.last_mut().expect("a number other than 0 has bytes") |= 0x80;
            }
            push(script, &bytes);
        }
    }
}

/// Appends a push of `data`, the length in its shortest form; small numbers get no opcode of their own.
pub fn push(script: &mut Vec<u8>, data: &[u8]) {
    let length = (data.len() as u32).to_le_bytes();
    match data.len() {
        ..0x4c => script.push(length[0]),
        0x4c..=0xff => script.extend([opcode::OP_PUSHDATA1, length[0]]),
        0x100..=0xffff => script.extend([opcode::OP_PUSHDATA2, length[0], length[1]]),
        _ => script.extend([&[opcode::OP_PUSHDATA4], &length[..]].concat()),
    }
    script.extend(data);
}
