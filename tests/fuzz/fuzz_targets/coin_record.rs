//! Records of the store: any bytes decode or give an error, and what was decoded survives its own encoding.
#![no_main]

use groat_chain::store::codec::{
    decode_coin, decode_header, decode_outpoint, decode_undo, encode_coin, encode_header, encode_outpoint, encode_undo,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(outpoint) = decode_outpoint(bytes) {
        assert_eq!(*encode_outpoint(&outpoint), *bytes, "the key of {outpoint}");
    }
    if let Ok(coin) = decode_coin(bytes) {
        let mut record = Vec::new();
        encode_coin(&coin, &mut record);
        assert_eq!(decode_coin(&record).as_ref(), Ok(&coin), "the record {record:02x?}");
    }
    if let Ok(coins) = decode_undo(bytes) {
        assert_eq!(decode_undo(&encode_undo(&coins)), Ok(coins), "an undo record");
    }
    if let Ok(header) = decode_header(bytes) {
        assert_eq!(decode_header(&encode_header(&header)), Ok(header), "a header record");
    }
});
