//! Networks: genesis, limits, activation heights, exception blocks. The rules read nothing of a network but what
//! stands here, so that a network of one's own is a file and not a fork. Knows no rule.

mod file;
mod known;
#[cfg(test)]
mod tests;

pub use file::ParamsError;
pub use known::{RegtestOptions, parse_activation_height};

use crate::script::Flags;
use bitcoin::{Block, BlockHash, KnownHrp, NetworkKind, ScriptBuf, Target, Work};

/// Everything in which one network differs from another.
#[derive(Clone, Debug)]
pub struct Params {
    /// `main`, `test` (testnet3), `testnet4`, `signet`, `regtest`, or the name of a network of one's own.
    pub name: String,
    /// First four bytes of every message and of every frame in a block file.
    pub magic: [u8; 4],
    /// Port for peers.
    pub port: u16,
    /// Port for JSON-RPC.
    pub rpc_port: u16,
    /// Folder below the data folder; empty for main.
    pub folder: String,
    /// How addresses and keys are written.
    pub address_set: AddressSet,
    /// The first block. Its coinbase is not a coin.
    pub genesis: Block,
    /// Hash of the first block.
    pub genesis_hash: BlockHash,

    /// The easiest target there is.
    pub pow_limit: Target,
    /// Seconds that a block should take.
    pub spacing: u32,
    /// Blocks between two retargets. Core: `DifficultyAdjustmentInterval`.
    pub retarget_interval: u32,
    /// The target never changes at a retarget.
    pub no_retargeting: bool,
    /// A block later than twice the spacing may have the easiest target.
    pub min_difficulty_blocks: bool,
    /// Retarget from the first block of a period, and no timewarp ([BIP-0094]).
    ///
    /// [BIP-0094]: https://github.com/bitcoin/bips/blob/master/bip-0094.mediawiki
    pub bip94: bool,

    /// Satoshi that the first blocks may create.
    pub initial_subsidy: u64,
    /// Blocks after which the subsidy halves.
    pub halving_interval: u32,
    /// Blocks after which a coinbase may be spent. Core: `COINBASE_MATURITY`.
    pub coinbase_maturity: u32,

    /// First height whose coinbase must begin with the height (BIP34).
    pub bip34_height: u32,
    /// Hash of the block at `bip34_height` on the branch where BIP30 look-ups may be skipped above it.
    pub bip34_hash: Option<BlockHash>,
    /// First height with OP_CHECKLOCKTIMEVERIFY (BIP65).
    pub bip65_height: u32,
    /// First height with strict DER signatures (BIP66).
    pub bip66_height: u32,
    /// First height with relative lock times (BIP68, BIP112, BIP113).
    pub csv_height: u32,
    /// First height with witness commitments and NULLDUMMY (BIP141, BIP147).
    pub segwit_height: u32,
    /// Blocks that fail under P2SH, WITNESS or TAPROOT, with the flags that stand in for those three.
    pub script_flag_exceptions: Vec<(BlockHash, Flags)>,
    /// Blocks that repeated an unspent coinbase before BIP30 forbade it.
    pub bip30_exceptions: Vec<(u32, BlockHash)>,
    /// First height whose signals for unknown rules are warned of. Core: `MinBIP9WarningHeight`.
    pub min_bip9_warning_height: u32,
    /// Deployments by version bits (BIP9).
    pub deployments: Vec<Deployment>,
    /// Version of the blocks made here, whatever they could signal for; for tests (`-blockversion`).
    pub block_version: Option<i32>,
    /// The script that every block but the first must solve (BIP325), on a signet.
    pub signet_challenge: Option<ScriptBuf>,

    /// Scripts need not be run in this block and its ancestors.
    pub assumed_valid: Option<BlockHash>,
    /// A chain with less work is not the network's.
    pub minimum_chain_work: Work,
    /// A tip younger than this, in seconds, is up to date. Core: `DEFAULT_MAX_TIP_AGE`.
    pub max_tip_age: u64,
    /// Blocks that must stand at their height. None on the known networks.
    pub checkpoints: Vec<(u32, BlockHash)>,
    /// Names that resolve to peers.
    pub dns_seeds: Vec<String>,
    /// How the proof of work of an unknown branch is checked before it is stored.
    pub headers_sync: HeadersSync,
    /// Height from which block files may be pruned. Core: `nPruneAfterHeight`.
    pub prune_after_height: u32,
}

/// How addresses and keys are written. Core: `base58Prefixes` and `bech32_hrp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AddressSet {
    /// `1...`, `3...`, `bc1...`
    Main,
    /// `m...`, `n...`, `2...`, `tb1...`
    Test,
    /// As `Test`, but `bcrt1...`
    Regtest,
}

impl AddressSet {
    /// The version bytes of base58 addresses and keys.
    pub fn kind(self) -> NetworkKind {
        if self == AddressSet::Main { NetworkKind::Main } else { NetworkKind::Test }
    }

    /// The part of a segwit address before the `1`.
    pub fn hrp(self) -> KnownHrp {
        match self {
            AddressSet::Main => KnownHrp::Mainnet,
            AddressSet::Test => KnownHrp::Testnets,
            AddressSet::Regtest => KnownHrp::Regtest,
        }
    }
}

/// Core: `HeadersSyncParams`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadersSync {
    /// Headers between two commitments.
    pub commitment_period: u32,
    /// Headers that are held back until the commitments above them are checked.
    pub redownload_buffer_size: u32,
}

/// A rule change that was activated by miners once and has a fixed height now ([BIP-0090]).
///
/// [BIP-0090]: https://github.com/bitcoin/bips/blob/master/bip-0090.mediawiki
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Buried {
    /// The coinbase begins with the height (BIP34).
    Bip34,
    /// Strict DER signatures (BIP66).
    Dersig,
    /// OP_CHECKLOCKTIMEVERIFY (BIP65).
    Cltv,
    /// Relative lock times (BIP68, BIP112, BIP113).
    Csv,
    /// Segregated witness (BIP141, BIP143, BIP147).
    Segwit,
}

impl Buried {
    /// All of them, in the order of their activation.
    pub const ALL: [Buried; 5] = [Buried::Bip34, Buried::Dersig, Buried::Cltv, Buried::Csv, Buried::Segwit];

    /// Its name in `getdeploymentinfo`. Core: `DeploymentName`.
    pub fn name(self) -> &'static str {
        match self {
            Buried::Bip34 => "bip34",
            Buried::Dersig => "bip66",
            Buried::Cltv => "bip65",
            Buried::Csv => "csv",
            Buried::Segwit => "segwit",
        }
    }
}

/// A rule change that miners activate by a bit of the version ([BIP-0009]). Core: `BIP9Deployment`.
///
/// [BIP-0009]: https://github.com/bitcoin/bips/blob/master/bip-0009.mediawiki
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deployment {
    /// Its name in `getdeploymentinfo`.
    pub name: &'static str,
    /// Number of the bit.
    pub bit: u8,
    /// Median time past from which blocks signal, or [`Deployment::ALWAYS_ACTIVE`], or [`Deployment::NEVER_ACTIVE`].
    pub start_time: i64,
    /// Median time past at which it fails.
    pub timeout: i64,
    /// It is active at this height at the earliest.
    pub min_activation_height: u32,
    /// Blocks in a signalling period.
    pub period: u32,
    /// Signalling blocks in a period that lock it in.
    pub threshold: u32,
}

impl Deployment {
    /// A `timeout` that never comes.
    pub(crate) const NO_TIMEOUT: i64 = i64::MAX;
    /// A `start_time`: active from the first block.
    pub const ALWAYS_ACTIVE: i64 = -1;
    /// A `start_time`: never active.
    pub const NEVER_ACTIVE: i64 = -2;
}

impl Params {
    /// The known network of this name, with its default settings; `test` is also called `testnet3`.
    pub fn by_name(name: &str) -> Option<Params> {
        Some(match name {
            "main" => Params::main(),
            "test" | "testnet3" => Params::testnet3(),
            "testnet4" => Params::testnet4(),
            "signet" => Params::signet(None),
            "regtest" => Params::regtest(&RegtestOptions::default()),
            _ => return None,
        })
    }

    /// First height at which a buried rule change holds. Core: `Params::DeploymentHeight`.
    pub fn activation_height(&self, deployment: Buried) -> u32 {
        match deployment {
            Buried::Bip34 => self.bip34_height,
            Buried::Dersig => self.bip66_height,
            Buried::Cltv => self.bip65_height,
            Buried::Csv => self.csv_height,
            Buried::Segwit => self.segwit_height,
        }
    }

    /// Moves a buried rule change to another height (`-testactivationheight`).
    pub(crate) fn set_activation_height(&mut self, deployment: Buried, height: u32) {
        *match deployment {
            Buried::Bip34 => &mut self.bip34_height,
            Buried::Dersig => &mut self.bip66_height,
            Buried::Cltv => &mut self.bip65_height,
            Buried::Csv => &mut self.csv_height,
            Buried::Segwit => &mut self.segwit_height,
        } = height;
    }

    /// Seconds that a whole retarget period should take. Core: `nPowTargetTimespan`.
    pub(crate) fn timespan(&self) -> u64 {
        u64::from(self.spacing) * u64::from(self.retarget_interval)
    }
}
