//! The known networks, as Core 31 has them (`kernel/chainparams.cpp`, `chainparamsbase.cpp`).

use super::{AddressSet, Buried, Deployment, HeadersSync, Params, ParamsError};
use crate::script::Flags;
use bitcoin::block::{Header, Version};
use bitcoin::hashes::{Hash, sha256d};
use bitcoin::script::Builder;
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, OutPoint, ScriptBuf, Sequence, Target, Transaction, TxIn, TxMerkleNode,
    TxOut, Witness, Work, absolute, opcodes, transaction,
};

/// What a regtest may be told on the command line.
#[derive(Clone, Debug, Default)]
pub struct RegtestOptions {
    /// `-testactivationheight`, parsed by [`parse_activation_height`].
    pub activation_heights: Vec<(Buried, u32)>,
    /// `-test=bip94`
    pub bip94: bool,
    /// `-fastprune`
    pub fast_prune: bool,
    /// `-vbparams=testdummy:start:timeout:min_activation_height`
    pub testdummy: Option<(i64, i64, u32)>,
    /// `-blockversion`
    pub block_version: Option<i32>,
}

/// Parses `-testactivationheight=NAME@HEIGHT`, with Core's names and errors.
pub fn parse_activation_height(argument: &str) -> Result<(Buried, u32), ParamsError> {
    let refused =
        |what: &str| Err(ParamsError(format!("Invalid {what} ({argument}) for -testactivationheight=name@height.")));
    let Some((name, height)) = argument.split_once('@') else { return refused("format") };
    // Core wants a height below the largest i32, and no plus sign.
    let height = match height.parse::<i32>() {
        Ok(number) if (0..i32::MAX).contains(&number) && !height.starts_with('+') => number.unsigned_abs(),
        _ => return refused("height value"),
    };
    let deployment = match name {
        "bip34" => Buried::Bip34,
        "dersig" => Buried::Dersig,
        "cltv" => Buried::Cltv,
        "csv" => Buried::Csv,
        "segwit" => Buried::Segwit,
        _ => return refused("name"),
    };
    Ok((deployment, height))
}

impl Params {
    /// The main network.
    pub fn main() -> Params {
        let flags = Flags::P2SH | Flags::WITNESS;
        Params {
            name: "main".into(),
            magic: [0xf9, 0xbe, 0xb4, 0xd9],
            port: 8333,
            rpc_port: 8332,
            folder: String::new(),
            address_set: AddressSet::Main,
            bip34_height: 227_931,
            bip34_hash: Some(hash("000000000000024b89b42a942fe0d9fea3bb44ab7bd1b19115dd6a759c0808b8")),
            bip65_height: 388_381,
            bip66_height: 363_725,
            csv_height: 419_328,
            segwit_height: 481_824,
            min_bip9_warning_height: 711_648,
            script_flag_exceptions: vec![
                // BIP16: height 170060.
                (hash("00000000000002dc756eebf4f49723ed8d30cc28a5f108eb94b1ba88ac4f9c22"), Flags::NONE),
                // Taproot: height 692261.
                (hash("0000000000000000000f14c35b2d841e986ab5441de8c585d5ffe55ea1e395ad"), flags),
            ],
            bip30_exceptions: vec![
                (91842, hash("00000000000a4d0a398161ffc163c503763b1f4360639393e0e4c8e300e0caec")),
                (91880, hash("00000000000743f190a18c5577a3c2d2a1f610ae9601ac046a38084ccb7cd721")),
            ],
            // Height 938343.
            assumed_valid: Some(hash("00000000000000000000ccebd6d74d9194d8dcdc1d177c478e094bfad51ba5ac")),
            minimum_chain_work: work("0x1128750f82f4c366153a3a030"),
            dns_seeds: seeds(&[
                "dnsseed.bluematt.me.",
                "seed.bitcoin.jonasschnelli.ch.",
                "seed.btc.petertodd.net.",
                "seed.bitcoin.sprovoost.nl.",
                "dnsseed.emzy.de.",
                "seed.bitcoin.wiz.biz.",
                "seed.mainnet.achownodes.xyz.",
            ]),
            headers_sync: HeadersSync { commitment_period: 641, redownload_buffer_size: 15218 },
            prune_after_height: 100_000,
            ..Params::base(genesis(&Genesis { time: 1231006505, nonce: 2083236893, ..Genesis::default() }))
        }
    }

    /// The third test network, which Core calls `test`.
    pub fn testnet3() -> Params {
        Params {
            name: "test".into(),
            magic: [0x0b, 0x11, 0x09, 0x07],
            port: 18333,
            rpc_port: 18332,
            folder: "testnet3".into(),
            min_difficulty_blocks: true,
            bip34_height: 21111,
            bip34_hash: Some(hash("0000000023b3a96d3484e5abb3755c413e7d41500f8e2a5c3f0dd01299cd8ef8")),
            bip65_height: 581_885,
            bip66_height: 330_776,
            csv_height: 770_112,
            segwit_height: 834_624,
            min_bip9_warning_height: 2_013_984,
            // BIP16: height 394.
            script_flag_exceptions: vec![(
                hash("00000000dd30457c001f4095d208cc1296b0eed002427aa599874af7a432b105"),
                Flags::NONE,
            )],
            deployments: vec![testdummy(Deployment::NEVER_ACTIVE, 1512, 2016)],
            // Height 4842348.
            assumed_valid: Some(hash("000000007a61e4230b28ac5cb6b5e5a0130de37ac1faf2f8987d2fa6505b67f4")),
            minimum_chain_work: work("0x17dde1c649f3708d14b6"),
            dns_seeds: seeds(&[
                "testnet-seed.bitcoin.jonasschnelli.ch.",
                "seed.tbtc.petertodd.net.",
                "seed.testnet.bitcoin.sprovoost.nl.",
                "testnet-seed.bluematt.me.",
                "seed.testnet.achownodes.xyz.",
            ]),
            headers_sync: HeadersSync { commitment_period: 673, redownload_buffer_size: 14460 },
            ..Params::base(genesis(&Genesis { time: 1296688602, nonce: 414098458, ..Genesis::default() }))
        }
    }

    /// The fourth test network ([BIP-0094]).
    ///
    /// [BIP-0094]: https://github.com/bitcoin/bips/blob/master/bip-0094.mediawiki
    pub fn testnet4() -> Params {
        let first = genesis(&Genesis {
            text: "03/May/2024 000000000000000000001ebd58c244970b3aa9d783bb001011fbe8ea8e98e00e",
            key: [0; 33].as_slice(),
            time: 1714777860,
            nonce: 393743547,
            ..Genesis::default()
        });
        Params {
            name: "testnet4".into(),
            magic: [0x1c, 0x16, 0x3f, 0x28],
            port: 48333,
            rpc_port: 48332,
            folder: "testnet4".into(),
            min_difficulty_blocks: true,
            bip94: true,
            deployments: vec![testdummy(Deployment::NEVER_ACTIVE, 1512, 2016)],
            // Height 123613.
            assumed_valid: Some(hash("0000000002368b1e4ee27e2e85676ae6f9f9e69579b29093e9a82c170bf7cf8a")),
            minimum_chain_work: work("0x9a0fe15d0177d086304"),
            dns_seeds: seeds(&["seed.testnet4.bitcoin.sprovoost.nl.", "seed.testnet4.wiz.biz."]),
            headers_sync: HeadersSync { commitment_period: 606, redownload_buffer_size: 16092 },
            ..Params::base(first)
        }
    }

    /// The signet of `challenge`, or the public one ([BIP-0325]).
    ///
    /// [BIP-0325]: https://github.com/bitcoin/bips/blob/master/bip-0325.mediawiki
    pub fn signet(challenge: Option<ScriptBuf>) -> Params {
        const CHALLENGE: &str = "512103ad5e0edad18cb1f0fc0d28a3d4f1f3e445640337489abb10404f2d1e086be430210359ef50\
                                 21964fe22d6f8e05b2463c9540ce96883fe3b278760f048f5189f2e6c452ae";
        let public = challenge.is_none();
        let challenge = challenge.unwrap_or_else(|| ScriptBuf::from_hex(CHALLENGE).expect("a constant"));
        let magic = sha256d::Hash::hash(&bitcoin::consensus::serialize(&challenge)).to_byte_array();
        let first = genesis(&Genesis { time: 1598918400, nonce: 52613770, bits: 0x1e0377ae, ..Genesis::default() });
        let mut params = Params {
            name: "signet".into(),
            magic: [magic[0], magic[1], magic[2], magic[3]],
            port: 38333,
            rpc_port: 38332,
            folder: "signet".into(),
            pow_limit: target("0x377ae000000000000000000000000000000000000000000000000000000"),
            signet_challenge: Some(challenge),
            headers_sync: HeadersSync { commitment_period: 620, redownload_buffer_size: 15724 },
            ..Params::base(first)
        };
        if public {
            // Height 293175.
            params.assumed_valid = Some(hash("00000008414aab61092ef93f1aacc54cf9e9f16af29ddad493b908a01ff5c329"));
            params.minimum_chain_work = work("0xb463ea0a4b8");
            params.dns_seeds = seeds(&["seed.signet.bitcoin.sprovoost.nl.", "seed.signet.achownodes.xyz."]);
        }
        params
    }

    /// The network for tests on one's own machine.
    pub fn regtest(options: &RegtestOptions) -> Params {
        let mut dummy = testdummy(0, 108, 144);
        if let Some((start_time, timeout, min_activation_height)) = options.testdummy {
            dummy = Deployment { start_time, timeout, min_activation_height, ..dummy };
        }
        let mut params = Params {
            name: "regtest".into(),
            magic: [0xfa, 0xbf, 0xb5, 0xda],
            port: 18444,
            rpc_port: 18443,
            folder: "regtest".into(),
            address_set: AddressSet::Regtest,
            pow_limit: target("0x7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"),
            retarget_interval: 144,
            no_retargeting: true,
            min_difficulty_blocks: true,
            bip94: options.bip94,
            halving_interval: 150,
            segwit_height: 0,
            deployments: vec![dummy],
            block_version: options.block_version,
            dns_seeds: seeds(&["dummySeed.invalid."]),
            headers_sync: HeadersSync { commitment_period: 275, redownload_buffer_size: 7017 },
            prune_after_height: if options.fast_prune { 100 } else { 1000 },
            ..Params::base(genesis(&Genesis { time: 1296688602, nonce: 2, bits: 0x207fffff, ..Genesis::default() }))
        };
        for &(deployment, height) in &options.activation_heights {
            params.set_activation_height(deployment, height);
        }
        params
    }

    /// What most networks share: two weeks, ten minutes, test addresses, every rule from the first block on.
    pub(super) fn base(genesis: Block) -> Params {
        Params {
            name: String::new(),
            magic: [0; 4],
            port: 0,
            rpc_port: 0,
            folder: String::new(),
            address_set: AddressSet::Test,
            genesis_hash: genesis.block_hash(),
            genesis,
            pow_limit: target("0xffffffffffffffffffffffffffffffffffffffffffffffffffffffff"),
            spacing: 600,
            retarget_interval: 2016,
            no_retargeting: false,
            min_difficulty_blocks: false,
            bip94: false,
            initial_subsidy: 50 * Amount::ONE_BTC.to_sat(),
            halving_interval: 210_000,
            coinbase_maturity: 100,
            bip34_height: 1,
            bip34_hash: None,
            bip65_height: 1,
            bip66_height: 1,
            csv_height: 1,
            segwit_height: 1,
            script_flag_exceptions: Vec::new(),
            bip30_exceptions: Vec::new(),
            min_bip9_warning_height: 0,
            deployments: vec![testdummy(Deployment::NEVER_ACTIVE, 1815, 2016)],
            block_version: None,
            signet_challenge: None,
            assumed_valid: None,
            minimum_chain_work: Work::from_be_bytes([0; 32]),
            max_tip_age: 24 * 60 * 60,
            checkpoints: Vec::new(),
            dns_seeds: Vec::new(),
            headers_sync: HeadersSync { commitment_period: 641, redownload_buffer_size: 15218 },
            prune_after_height: 1000,
        }
    }
}

/// What makes a first block.
pub(super) struct Genesis<'a> {
    pub text: &'a str,
    pub key: &'a [u8],
    pub time: u32,
    pub bits: u32,
    pub nonce: u32,
    pub reward: u64,
}

impl Default for Genesis<'_> {
    fn default() -> Self {
        const KEY: &[u8] = b"\x04\x67\x8a\xfd\xb0\xfe\x55\x48\x27\x19\x67\xf1\xa6\x71\x30\xb7\x10\x5c\xd6\xa8\x28\xe0\
            \x39\x09\xa6\x79\x62\xe0\xea\x1f\x61\xde\xb6\x49\xf6\xbc\x3f\x4c\xef\x38\xc4\xf3\x55\x04\xe5\x1e\xc1\x12\
            \xde\x5c\x38\x4d\xf7\xba\x0b\x8d\x57\x8a\x4c\x70\x2b\x6b\xf1\x1d\x5f";
        Genesis {
            text: "The Times 03/Jan/2009 Chancellor on brink of second bailout for banks",
            key: KEY,
            time: 0,
            bits: 0x1d00ffff,
            nonce: 0,
            reward: 50 * Amount::ONE_BTC.to_sat(),
        }
    }
}

/// The first block that these make. Core: `CreateGenesisBlock`.
pub(super) fn genesis(of: &Genesis) -> Block {
    let push = |bytes: &[u8]| bitcoin::script::PushBytesBuf::try_from(bytes.to_vec()).expect("a text is short");
    // The first push is the main network's bits as a script number, whatever the network.
    let input = Builder::new().push_int(486_604_799).push_slice([4]).push_slice(push(of.text.as_bytes()));
    let output = Builder::new().push_slice(push(of.key)).push_opcode(opcodes::all::OP_CHECKSIG);
    let coinbase = Transaction {
        version: transaction::Version::ONE,
        lock_time: absolute::LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::null(),
            script_sig: input.into_script(),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        }],
        output: vec![TxOut { value: Amount::from_sat(of.reward), script_pubkey: output.into_script() }],
    };
    let header = Header {
        version: Version::ONE,
        prev_blockhash: BlockHash::all_zeros(),
        merkle_root: TxMerkleNode::from_byte_array(coinbase.compute_txid().to_byte_array()),
        time: of.time,
        bits: CompactTarget::from_consensus(of.bits),
        nonce: of.nonce,
    };
    Block { header, txdata: vec![coinbase] }
}

/// The deployment that tests of BIP9 signal for.
fn testdummy(start_time: i64, threshold: u32, period: u32) -> Deployment {
    let timeout = Deployment::NO_TIMEOUT;
    Deployment { name: "testdummy", bit: 28, start_time, timeout, min_activation_height: 0, period, threshold }
}

fn hash(text: &str) -> BlockHash {
    text.parse().expect("a constant")
}

fn target(text: &str) -> Target {
    Target::from_hex(text).expect("a constant")
}

fn work(text: &str) -> Work {
    Work::from_hex(text).expect("a constant")
}

fn seeds(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| name.to_string()).collect()
}
