//! Tests of the networks.

use super::*;
use crate::rules::{pow, signet};

fn known() -> Vec<Params> {
    ["main", "testnet3", "testnet4", "signet", "regtest"]
        .iter()
        .map(|name| Params::by_name(name).expect("a known name"))
        .collect()
}

#[test]
fn the_first_blocks_have_the_hashes_of_core() {
    let expected = [
        "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f",
        "000000000933ea01ad0ee984209779baaec3ced90fa3f408719526f8d77f4943",
        "00000000da84f2bafbbc53dee25a72ae507ff4914b867c565be350b0da8bf043",
        "00000008819873e925422c1ff0f99f7cc9bbb232af63a077a480a3633bee1ef6",
        "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206",
    ];
    for (params, expected) in known().iter().zip(expected) {
        assert_eq!(params.genesis_hash.to_string(), expected, "{}", params.name);
        let work = pow::check_proof_of_work(params.genesis_hash, params.genesis.header.bits, params);
        assert_eq!(work, Ok(()), "{}", params.name);
        assert_eq!(pow::to_compact(params.pow_limit), params.genesis.header.bits, "{}: limit", params.name);
    }
}

#[test]
fn the_magic_of_a_signet_comes_from_its_challenge() {
    assert_eq!(Params::signet(None).magic, [0x0a, 0x03, 0xcf, 0x40], "the public signet");
    let other = Params::signet(Some(ScriptBuf::from_hex("51").expect("hex")));
    assert_eq!(other.magic, [0x54, 0xd2, 0x6f, 0xbd], "OP_TRUE");
    assert_eq!(other.minimum_chain_work, Work::from_be_bytes([0; 32]), "nothing is assumed of it");
    assert!(other.dns_seeds.is_empty() && other.assumed_valid.is_none());
}

#[test]
fn activation_heights_are_parsed_as_core_parses_them() {
    assert_eq!(parse_activation_height("segwit@7"), Ok((Buried::Segwit, 7)));
    for (argument, what) in [
        ("segwit", "format"),
        ("", "format"),
        ("cltv@-1", "height value"),
        ("cltv@2147483647", "height value"),
        ("cltv@+1", "height value"),
        ("taproot@1", "name"),
    ] {
        let error = parse_activation_height(argument).expect_err(argument).0;
        assert_eq!(error, format!("Invalid {what} ({argument}) for -testactivationheight=name@height."));
    }
    let options = RegtestOptions { activation_heights: vec![(Buried::Dersig, 102)], ..Default::default() };
    assert_eq!(Params::regtest(&options).bip66_height, 102);
}

/// The example of the documentation.
fn example() -> &'static str {
    let page = include_str!("../../../docs/NETWORKS.md");
    let (_, rest) = page.split_once("```toml\n").expect("the page has an example");
    rest.split_once("```").expect("the example ends").0
}

#[test]
fn the_documented_example_is_a_network() {
    let params = Params::from_toml(example()).expect("the example is valid");
    assert_eq!((params.name.as_str(), params.folder.as_str()), ("example", "example"));
}

/// The example with other lines instead of those that begin so.
fn changed(changes: &[(&str, &str)]) -> String {
    let instead = |line| changes.iter().find(|(begins, _)| str::starts_with(line, begins)).map(|(_, instead)| *instead);
    example().lines().map(|line| instead(line).unwrap_or(line)).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_network_has_what_its_file_says() {
    let hash = Params::main().genesis_hash;
    let top =
        format!("port = 1\nsignet_challenge = \"51\"\nassumed_valid = \"{hash}\"\nminimum_chain_work = \"{:064x}\"", 9);
    let text = changed(&[
        ("port = ", &top),
        ("rpc_port = ", "rpc_port = 2"),
        ("spacing = ", "spacing = 7"),
        ("csv = ", "csv = 77"),
    ]);
    let params = Params::from_toml(&text).expect("the changed example is valid");
    let expected = Params {
        port: 1,
        rpc_port: 2,
        signet_challenge: Some(ScriptBuf::from_hex("51").expect("hex")),
        assumed_valid: Some(hash),
        minimum_chain_work: Work::from_be_bytes(std::array::from_fn(|at| if at == 31 { 9 } else { 0 })),
        spacing: 7,
        csv_height: 77,
        checkpoints: vec![(1000, hash)],
        magic: [0x0e, 0x7a, 0x41, 0xb1],
        retarget_interval: 144,
        bip94: true,
        ..Params::from_toml(example()).expect("the example is valid")
    };
    assert_eq!(format!("{params:?}"), format!("{expected:?}"));
}

#[test]
fn a_bad_file_gets_a_sentence_that_names_the_key() {
    let twice = format!("[[checkpoints]]\nheight = 1000\nhash = \"{}\"\n[[checkpoints]]", Params::main().genesis_hash);
    let cases = [
        // (line of the example, instead of it, what the sentence says)
        ("magic = ", "magic = \"f9beb4d9\"", "`magic` must be free, but it is that of main"),
        ("magic = ", "magic = \"xyz\"", "`magic` must be 8 hexadecimal digits, not \"xyz\""),
        ("port = ", "port = 8333", "`port` must be free, but it is that of main"),
        ("port = ", "port = 70000", "`port` in line"),
        ("port = ", "port = 70000", "expected a whole number from 0 to 65535"),
        ("port = ", "prot = 1", "unknown field `prot`, expected"),
        ("port = ", "", "missing field `port`"),
        ("rpc_port = ", "rpc_port = 48555", "`rpc_port` must be a number from 1 to 65535, other than `port`"),
        ("name = ", "name = \"regtest\"", "`name` must be free, but it is that of regtest"),
        ("name = ", "name = \"../x\"", "`name` must be 1 to 32 letters"),
        ("addresses = ", "addresses = \"mine\"", "`addresses` in line"),
        ("nonce = ", "nonce = 0", "`genesis.nonce` must be one that gives a hash no higher than the target"),
        ("bits = ", "bits = \"1d80ffff\"", "`genesis.bits` must be a target above zero"),
        ("bits = ", "bits = \"217fffff\"", "`genesis.bits` must be a target above zero"),
        ("limit = ", "limit = 5", "`limit` in line"),
        ("spacing = ", "spacing = 0", "`proof_of_work.spacing` must be at least one second, not 0"),
        (
            "retarget_interval = ",
            "retarget_interval = 3",
            "`proof_of_work.retarget_interval` must be at least 4 blocks",
        ),
        ("subsidy = ", "subsidy = -1", "`subsidy` in line"),
        ("subsidy = ", "subsidy = 2100000000000001", "`coin.subsidy` must be at most"),
        ("halving_interval = ", "halving_interval = 0", "`coin.halving_interval` must be at least one block, not 0"),
        ("segwit = ", "segwit = true", "`segwit` in line"),
        ("hash = ", "hash = \"12\"", "`checkpoints.hash` must be a block hash"),
        ("[[checkpoints]]", &twice, "`checkpoints.height` must be another in each checkpoint, not 1000"),
        ("name = ", "name", "in line"),
    ];
    for (line, instead, expected) in cases {
        let error = Params::from_toml(&changed(&[(line, instead)])).expect_err(instead).0;
        assert!(error.contains(expected), "{instead}: expected \"{expected}\", got \"{error}\"");
        assert!(!error.contains('\n'), "{instead}: one sentence, got \"{error}\"");
    }
    let stolen = [
        ("text = ", "text = \"The Times 03/Jan/2009 Chancellor on brink of second bailout for banks\""),
        ("time = ", "time = 1231006505"),
        ("bits = ", "bits = \"1d00ffff\""),
        ("nonce = ", "nonce = 2083236893"),
    ];
    let error = Params::from_toml(&changed(&stolen)).expect_err("the first block of main").0;
    assert!(error.starts_with("`genesis` must be free, but it is that of main"), "{error}");
    let missing = Params::from_file(std::path::Path::new("/nonexistent/net.toml")).expect_err("no file").0;
    assert!(missing.starts_with("/nonexistent/net.toml: "), "{missing}");
}

#[test]
fn only_a_signet_asks_for_solutions() {
    for params in known() {
        assert_eq!(params.signet_challenge.is_some(), params.name == "signet", "{}", params.name);
        let genesis = bitcoin::consensus::serialize(&params.genesis);
        let genesis = crate::block::Block::decode(&genesis).expect("a block");
        assert_eq!(signet::check_solution(&genesis, &params), Ok(()), "{}: the first block has none", params.name);
    }
}
