//! What libsecp256k1 alone takes for the signatures of a chain: the floor under every import.

use groat_tests::chaingen::Summary;
use secp256k1::{Keypair, Message, PublicKey, Scalar, Secp256k1, SecretKey, XOnlyPublicKey, ecdsa, schnorr};

use crate::process::process;

/// Seconds of processor that libsecp256k1 alone takes for the checks of a chain, parsing of keys and signatures included: a sample
/// of each kind, scaled.
pub fn signature_seconds(summary: &Summary) -> f64 {
    const DIFFERENT: usize = 500;
    const ROUNDS: usize = 100;
    let secp = Secp256k1::new();
    let keys: Vec<Keypair> = (1..=DIFFERENT as u64)
        .map(|number| {
            let mut bytes = [0x5a; 32];
            bytes[..8].copy_from_slice(&number.to_le_bytes());
            Keypair::from_secret_key(&secp, &SecretKey::from_slice(&bytes).expect("the number is below the order"))
        })
        .collect();
    let message = |index: usize| Message::from_digest([(index % 251) as u8; 32]);
    let ecdsa: Vec<([u8; 33], Vec<u8>)> = keys
        .iter()
        .enumerate()
        .map(|(index, key)| {
            let signature = secp.sign_ecdsa(&message(index), &key.secret_key());
            (key.public_key().serialize(), signature.serialize_der().to_vec())
        })
        .collect();
    let schnorr: Vec<([u8; 32], [u8; 64])> = keys
        .iter()
        .enumerate()
        .map(|(index, key)| {
            let signature = secp.sign_schnorr_no_aux_rand(&message(index), key);
            (key.x_only_public_key().0.serialize(), signature.serialize())
        })
        .collect();
    let own = || process("self").expect("/proc tells of this process").1;
    let seconds_each = |check: &dyn Fn(usize)| {
        let before = own();
        (0..ROUNDS).for_each(|_| (0..DIFFERENT).for_each(check));
        (own() - before) / (ROUNDS * DIFFERENT) as f64
    };
    let one_ecdsa = seconds_each(&|index| {
        let key = PublicKey::from_slice(&ecdsa[index].0).expect("the key was serialized");
        let mut signature = ecdsa::Signature::from_der_lax(&ecdsa[index].1).expect("the signature was serialized");
        signature.normalize_s();
        secp.verify_ecdsa(&message(index), &signature, &key).expect("the signature fits");
    });
    let one_schnorr = seconds_each(&|index| {
        let key = XOnlyPublicKey::from_slice(&schnorr[index].0).expect("the key was serialized");
        let signature = schnorr::Signature::from_slice(&schnorr[index].1).expect("the signature was serialized");
        secp.verify_schnorr(&signature, &message(index), &key).expect("the signature fits");
    });
    let tweak = Scalar::from_be_bytes([0x33; 32]).expect("the number is below the order");
    let tweaked: Vec<_> =
        keys.iter().map(|key| key.x_only_public_key().0.add_tweak(&secp, &tweak).expect("the sum is a key")).collect();
    let one_tweak = seconds_each(&|index| {
        let key = XOnlyPublicKey::from_slice(&schnorr[index].0).expect("the key was serialized");
        let (output, parity) = tweaked[index];
        assert!(key.tweak_add_check(&secp, &output, parity, tweak), "the tweak fits");
    });
    one_ecdsa * summary.ecdsa_checks as f64
        + one_schnorr * summary.schnorr_checks as f64
        + one_tweak * summary.taproot_tweaks as f64
}
