//! `groat net new`: the file of a network, with its first block mined on the spot.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

use bitcoin::hashes::{Hash, sha256};
use bitcoin::hex::DisplayHex;
use bitcoin::secp256k1::rand::{Rng, rngs::OsRng};
use bitcoin::{Amount, CompactTarget, Target};
use groat_chain::params::Params;
use serde_json::json;

use crate::cli::NewNetwork;
use crate::error::{Doing, Result, failed, usage};
use crate::format::{btc, parse_amount};
use crate::session::Session;
use crate::sync::now;

/// Ports that are chosen from: below those that systems give away.
const PORTS: std::ops::Range<u16> = 10_001..30_000;
/// Retarget interval that is written where the difficulty stays, and the default.
const RETARGET: &str = "144";

/// `groat net new`.
pub fn new(session: &Session, plan: &NewNetwork) -> Result<()> {
    let path = plan.out.clone().unwrap_or_else(|| PathBuf::from(format!("{}.toml", plan.name)));
    if path.exists() {
        return Err(failed(format!("there is a file {} already: take another name, or --out", path.display())));
    }
    let text = Text::ask(session, plan)?;
    // All but the nonce is judged before the search for it.
    let nonce = match Params::from_toml(&text.with(0)) {
        Err(error) if error.0.starts_with("`genesis.nonce`") => {
            session.say("Looking for the first block ...");
            Params::find_nonce(&text.with(0)).map_err(|error| usage(error.to_string()))?
        }
        Err(error) => return Err(usage(error.to_string())),
        Ok(_) => 0,
    };
    let text = text.with(nonce);
    let params = Params::from_toml(&text).map_err(|error| usage(error.to_string()))?;
    let mut file =
        OpenOptions::new().write(true).create_new(true).open(&path).doing(format!("make {}", path.display()))?;
    if let Err(error) = file.write_all(text.as_bytes()) {
        // Half a file would be another network.
        let _ = std::fs::remove_file(&path);
        return Err(failed(format!("cannot write {}: {error}", path.display())));
    }
    let hash = sha256::Hash::hash(text.as_bytes()).to_string();
    let era = |era: u32| (params.initial_subsidy >> era).saturating_mul(params.halving_interval.into());
    let supply = (0..u64::BITS).map(era).fold(0, u64::saturating_add);
    let value = json!({
        "name": params.name, "file": path, "hash": hash, "genesis": params.genesis_hash,
        "supply_sat": supply, "magic": params.magic.to_lower_hex_string(), "port": params.port, "rpc_port": params.rpc_port,
    });
    session.show(&value, || {
        let file = path.display();
        format!(
            "{file} is the network {}; give the file to all who join.\n  Hash         {hash}\n  First block  {}\n  \
             Coins        {} a block at first, {} in all\n  \
             Ports        {} for peers, {} for JSON-RPC\nStart it with: groat net up {file}",
            params.name,
            params.genesis_hash,
            btc(params.initial_subsidy),
            btc(supply),
            params.port,
            params.rpc_port
        )
    });
    if supply > Amount::MAX_MONEY.to_sat() {
        session.warn("an amount can be 21,000,000 BTC at most, and there will be more coins than that: lower --subsidy or --halving");
    }
    Ok(())
}

/// The file in two parts, between which the nonce stands.
struct Text(String, String);

impl Text {
    fn with(&self, nonce: u32) -> String {
        format!("{}{nonce}{}", self.0, self.1)
    }

    /// From what is given; what is not is asked for.
    fn ask(session: &Session, plan: &NewNetwork) -> Result<Text> {
        let number = |given: Option<u32>, question: &str, default: &str| match given {
            Some(number) => Ok(number),
            None => {
                let said = session.prompt.line_or(question, default)?;
                said.parse().map_err(|_| usage(format!("{said:?} is not a whole number from 0 to 4294967295")))
            }
        };
        let spacing = number(plan.spacing, "Seconds a block should take?", "60")?;
        let retarget = number(plan.retarget, "Adjust the difficulty after how many blocks (0: never)?", RETARGET)?;
        let halving = number(plan.halving, "Halve the subsidy after how many blocks?", "210000")?;
        let subsidy = match &plan.subsidy {
            Some(amount) => amount.clone(),
            None => session.prompt.line_or("What does a block give at first (a bare number is satoshi)?", "50btc")?,
        };
        let subsidy = parse_amount(&subsidy)?.to_sat();
        let maturity = number(plan.maturity, "After how many blocks may mined coins be spent?", "100")?;

        let bits = u32::from_str_radix(&plan.bits, 16);
        let bits = bits.map_err(|_| usage(format!("--bits takes 8 hexadecimal digits, not {:?}", plan.bits)))?;
        let limit = Target::from_compact(CompactTarget::from_consensus(bits)).to_be_bytes().to_lower_hex_string();
        let ago = u64::from(spacing) * (u64::from(maturity) + 1);
        let time = plan.time.map_or_else(|| now().saturating_sub(ago), u64::from);
        let magic = plan.magic.clone().unwrap_or_else(|| OsRng.r#gen::<[u8; 4]>().to_lower_hex_string());
        let port = plan.port.unwrap_or_else(|| OsRng.gen_range(PORTS));
        let rpc_port = plan.rpc_port.unwrap_or(port.wrapping_sub(1));
        let mut checkpoints = String::new();
        for checkpoint in &plan.checkpoint {
            let bad = || usage(format!("--checkpoint takes HEIGHT:HASH, not {checkpoint:?}"));
            let (height, hash) = checkpoint.split_once(':').ok_or_else(bad)?;
            let height: u32 = height.parse().map_err(|_| bad())?;
            checkpoints += &format!("\n[[checkpoints]]\nheight = {height}\nhash = {}\n", json!(hash));
        }
        let (name, text) = (json!(plan.name), json!(plan.text.as_ref().unwrap_or(&plan.name)));
        let seeds = if plan.seed.is_empty() { String::new() } else { format!("seeds = {}\n", json!(plan.seed)) };
        let (retargeting, interval) = match retarget {
            0 => (false, RETARGET.to_owned()),
            blocks => (true, blocks.to_string()),
        };
        Ok(Text(
            format!(
                "# A network of one's own. Whoever joins needs this file, unchanged: groatd --chain FILE\n\
                 name = {name}\nmagic = {}\nport = {port}\nrpc_port = {rpc_port}\naddresses = {}\n{seeds}\n\
                 [genesis]\ntext = {text}\ntime = {time}\nbits = \"{bits:08x}\"\nnonce = ",
                json!(magic),
                json!(plan.addresses),
            ),
            format!(
                "\nreward = {subsidy}\n\n\
                 [proof_of_work]\nlimit = \"{limit}\"\nspacing = {spacing}\nretarget_interval = {interval}\n\
                 retargeting = {retargeting}\nmin_difficulty_blocks = false\nbip94 = true\n\n\
                 [coin]\nsubsidy = {subsidy}\nhalving_interval = {halving}\nmaturity = {maturity}\n{checkpoints}",
            ),
        ))
    }
}
