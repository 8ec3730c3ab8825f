//! A network of one's own from a TOML file. The keys: `docs/NETWORKS.md`. Knows no rule.

use super::known::{Genesis, genesis};
use super::{AddressSet, Params};
use bitcoin::hex::{DisplayHex, FromHex};
use bitcoin::{Amount, Block, BlockHash, CompactTarget, ScriptBuf, Target, Work};
use serde::Deserialize;
use std::fmt::Display;
use std::path::Path;

/// What is wrong with a parameter: one sentence for the user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParamsError(pub String);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    magic: String,
    port: u16,
    rpc_port: u16,
    addresses: AddressSet,
    #[serde(default)]
    seeds: Vec<String>,
    #[serde(default)]
    signet_challenge: Option<String>,
    #[serde(default)]
    minimum_chain_work: Option<String>,
    #[serde(default)]
    assumed_valid: Option<String>,
    genesis: GenesisTable,
    proof_of_work: ProofOfWorkTable,
    coin: CoinTable,
    #[serde(default)]
    activation: ActivationTable,
    #[serde(default)]
    checkpoints: Vec<CheckpointTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GenesisTable {
    text: String,
    time: u32,
    bits: String,
    nonce: u32,
    reward: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProofOfWorkTable {
    limit: String,
    spacing: u32,
    retarget_interval: u32,
    retargeting: bool,
    min_difficulty_blocks: bool,
    #[serde(default)]
    bip94: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CoinTable {
    subsidy: u64,
    halving_interval: u32,
    maturity: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ActivationTable {
    bip34: u32,
    bip65: u32,
    bip66: u32,
    csv: u32,
    segwit: u32,
}

impl Default for ActivationTable {
    fn default() -> Self {
        ActivationTable { bip34: 1, bip65: 1, bip66: 1, csv: 1, segwit: 1 }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CheckpointTable {
    height: u32,
    hash: String,
}

impl Params {
    /// Reads the parameters of a network of one's own. The error names the file, the key, and what was expected.
    pub fn from_file(path: &Path) -> Result<Params, ParamsError> {
        std::fs::read_to_string(path)
            .map_err(|error| ParamsError(error.to_string()))
            .and_then(|text| Params::from_toml(&text))
            .map_err(|error| ParamsError(format!("{}: {error}", path.display())))
    }

    /// The same from the text of a file.
    pub fn from_toml(text: &str) -> Result<Params, ParamsError> {
        let file: File = toml::from_str(text).map_err(|error| sentence(text, &error))?;
        let params = file.params()?;
        params.refuse_clashes()?;
        Ok(params)
    }

    /// The first nonce, from 0 on, that makes the first block of such a file a valid one; its own nonce is not looked at.
    /// The search takes as long as a block of `genesis.bits` does.
    pub fn find_nonce(text: &str) -> Result<u32, ParamsError> {
        let file: File = toml::from_str(text).map_err(|error| sentence(text, &error))?;
        let (_, target) = file.targets()?;
        let mut header = file.first_block()?.header;
        let found = (0..=u32::MAX).find(|nonce| {
            header.nonce = *nonce;
            header.validate_pow(target).is_ok()
        });
        found.map_or_else(|| refuse("genesis.text", "another one: no nonce is left to try", &file.genesis.text), Ok)
    }

    /// A network that shares its magic, a port, its name or its first block with a known one would mix with it.
    fn refuse_clashes(&self) -> Result<(), ParamsError> {
        for known in ["main", "testnet3", "testnet4", "signet", "regtest"] {
            let other = Params::by_name(known).expect("a known name");
            let ports = [other.port, other.rpc_port];
            let free = format!("free, but it is that of {known}");
            require(self.name != known && self.name != other.name, "name", &free, &self.name)?;
            require(self.magic != other.magic, "magic", &free, self.magic.to_lower_hex_string())?;
            require(!ports.contains(&self.port), "port", &free, self.port)?;
            require(!ports.contains(&self.rpc_port), "rpc_port", &free, self.rpc_port)?;
            require(self.genesis_hash != other.genesis_hash, "genesis", &free, self.genesis_hash)?;
        }
        Ok(())
    }
}

impl File {
    /// The easiest target, and that of the first block.
    fn targets(&self) -> Result<(Target, Target), ParamsError> {
        let limit = Target::from_be_bytes(digits::<32>("proof_of_work.limit", &self.proof_of_work.limit)?);
        let bits = u32::from_be_bytes(digits::<4>("genesis.bits", &self.genesis.bits)?);
        let target = Target::from_compact(CompactTarget::from_consensus(bits));
        // Bits that come back unchanged have no sign and no overflow.
        let allowed = target != Target::ZERO && target <= limit && target.to_compact_lossy().to_consensus() == bits;
        let expected = "a target above zero and no easier than `proof_of_work.limit`";
        require(allowed, "genesis.bits", expected, &self.genesis.bits)?;
        Ok((limit, target))
    }

    fn first_block(&self) -> Result<Block, ParamsError> {
        let GenesisTable { text, time, bits, nonce, reward } = &self.genesis;
        require((1..=91).contains(&text.len()), "genesis.text", "1 to 91 bytes", format!("{} bytes", text.len()))?;
        let bits = u32::from_be_bytes(digits::<4>("genesis.bits", bits)?);
        Ok(genesis(&Genesis { text, time: *time, bits, nonce: *nonce, reward: *reward, ..Genesis::default() }))
    }

    fn params(self) -> Result<Params, ParamsError> {
        let ((limit, target), block) = (self.targets()?, self.first_block()?);
        let File { name, genesis: first, proof_of_work: pow, coin, activation, .. } = self;
        let plain = !name.is_empty() && name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-');
        require(plain && name.len() <= 32, "name", "1 to 32 letters a-z, digits and hyphens", &name)?;
        require(self.port > 0, "port", "a number from 1 to 65535", self.port)?;
        let rpc = self.rpc_port > 0 && self.rpc_port != self.port;
        require(rpc, "rpc_port", "a number from 1 to 65535, other than `port`", self.rpc_port)?;

        let timespan = u64::from(pow.spacing) * u64::from(pow.retarget_interval);
        require(pow.spacing > 0, "proof_of_work.spacing", "at least one second", pow.spacing)?;
        let interval = if pow.retargeting { pow.retarget_interval >= 4 } else { pow.retarget_interval >= 1 };
        let expected = "at least 4 blocks (1 without retargeting), and below 2^32 seconds times the spacing";
        let interval = interval && timespan <= u64::from(u32::MAX);
        require(interval, "proof_of_work.retarget_interval", expected, pow.retarget_interval)?;

        let (most, all_money) = (Amount::MAX_MONEY.to_sat(), "at most 2100000000000000 satoshi");
        require(first.reward <= most, "genesis.reward", all_money, first.reward)?;
        require(coin.subsidy <= most, "coin.subsidy", all_money, coin.subsidy)?;
        require(coin.halving_interval > 0, "coin.halving_interval", "at least one block", coin.halving_interval)?;
        require(coin.maturity > 0, "coin.maturity", "at least one block", coin.maturity)?;
        let expected = "one that gives a hash no higher than the target of `genesis.bits`";
        let found = format!("{}, which gives {}", first.nonce, block.block_hash());
        require(block.header.validate_pow(target).is_ok(), "genesis.nonce", expected, found)?;

        let mut checkpoints: Vec<(u32, BlockHash)> = Vec::new();
        for checkpoint in &self.checkpoints {
            require(checkpoint.height > 0, "checkpoints.height", "above the first block", checkpoint.height)?;
            let is_first = checkpoints.iter().all(|(height, _)| *height != checkpoint.height);
            require(is_first, "checkpoints.height", "another in each checkpoint", checkpoint.height)?;
            checkpoints.push((checkpoint.height, block_hash("checkpoints.hash", &checkpoint.hash)?));
        }
        let challenge = self.signet_challenge.map(|text| {
            ScriptBuf::from_hex(&text).or_else(|_| refuse("signet_challenge", "a script in hexadecimal digits", &text))
        });
        let work = self.minimum_chain_work.map(|text| digits::<32>("minimum_chain_work", &text)).transpose()?;
        Ok(Params {
            magic: digits::<4>("magic", &self.magic)?,
            port: self.port,
            rpc_port: self.rpc_port,
            folder: name.clone(),
            name,
            address_set: self.addresses,
            pow_limit: limit,
            spacing: pow.spacing,
            retarget_interval: pow.retarget_interval,
            no_retargeting: !pow.retargeting,
            min_difficulty_blocks: pow.min_difficulty_blocks,
            bip94: pow.bip94,
            initial_subsidy: coin.subsidy,
            halving_interval: coin.halving_interval,
            coinbase_maturity: coin.maturity,
            bip34_height: activation.bip34,
            bip65_height: activation.bip65,
            bip66_height: activation.bip66,
            csv_height: activation.csv,
            segwit_height: activation.segwit,
            signet_challenge: challenge.transpose()?,
            assumed_valid: self.assumed_valid.map(|text| block_hash("assumed_valid", &text)).transpose()?,
            minimum_chain_work: Work::from_be_bytes(work.unwrap_or_default()),
            checkpoints,
            dns_seeds: self.seeds,
            ..Params::base(block)
        })
    }
}

fn refuse<T>(key: &str, expected: &str, found: impl Display) -> Result<T, ParamsError> {
    Err(ParamsError(format!("`{key}` must be {expected}, not {found}")))
}

fn require(holds: bool, key: &str, expected: &str, found: impl Display) -> Result<(), ParamsError> {
    if holds { Ok(()) } else { refuse(key, expected, found) }
}

/// The bytes that `text` writes in hexadecimal digits.
fn digits<const N: usize>(key: &str, text: &str) -> Result<[u8; N], ParamsError> {
    <[u8; N]>::from_hex(text).or_else(|_| refuse(key, &format!("{} hexadecimal digits", 2 * N), format!("\"{text}\"")))
}

fn block_hash(key: &str, text: &str) -> Result<BlockHash, ParamsError> {
    text.parse().or_else(|_| refuse(key, "a block hash of 64 hexadecimal digits", format!("\"{text}\"")))
}

/// The parser's complaint in one line: where, which key, what was expected.
fn sentence(text: &str, error: &toml::de::Error) -> ParamsError {
    let start = error.span().map_or(0, |span| span.start);
    let (line_start, line_number) =
        (text[..start].rfind('\n').map_or(0, |at| at + 1), text[..start].matches('\n').count());
    let line = text[line_start..].lines().next().unwrap_or_default();
    let key = line.split('=').next().unwrap_or_default().trim();
    let message = error.message().replace('\n', ", ");
    let message = message.replace("expected u16", "expected a whole number from 0 to 65535");
    let message = message.replace("expected u32", "expected a whole number from 0 to 4294967295");
    let message = message.replace("expected u64", "expected a whole number");
    if message.starts_with("missing field") {
        return ParamsError(format!("{message}; docs/NETWORKS.md lists what is expected"));
    }
    ParamsError(format!("`{key}` in line {}: {message}", line_number + 1))
}
