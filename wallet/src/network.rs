//! The chain that a command works on: its name, ports and address set, known or from a parameter file.

use std::path::Path;

use bitcoin::address::NetworkUnchecked;
use bitcoin::{Address, BlockHash, ScriptBuf};
use groat_chain::params::{AddressSet, Params};

use crate::error::{Doing, Result, failed, usage};

/// The names that `--chain` knows.
const NAMES: [&str; 5] = ["main", "test", "testnet4", "signet", "regtest"];

/// A chain, with what the wallet's libraries call its kind: how keys and addresses are written.
pub struct Network {
    /// All that is known of it.
    pub params: Params,
    /// How keys and addresses are written.
    pub kind: bitcoin::Network,
    /// As `--chain` takes it.
    pub chain: String,
}

impl Network {
    /// A chain by its name or by its parameter file.
    pub fn load(chain: &str) -> Result<Network> {
        let params = match Params::by_name(chain) {
            Some(params) => params,
            None if Path::new(chain).is_file() => {
                Params::from_file(Path::new(chain)).map_err(|error| failed(error.to_string()))?
            }
            None => {
                return Err(usage(format!(
                    "there is no chain {chain:?}: it is one of {}, or a file",
                    NAMES.join(", ")
                )));
            }
        };
        let kind = match (params.address_set, params.name.as_str()) {
            (AddressSet::Main, _) => bitcoin::Network::Bitcoin,
            (AddressSet::Regtest, _) => bitcoin::Network::Regtest,
            (AddressSet::Test, "testnet4") => bitcoin::Network::Testnet4,
            (AddressSet::Test, "signet") => bitcoin::Network::Signet,
            (AddressSet::Test, _) => bitcoin::Network::Testnet,
        };
        Ok(Network { params, kind, chain: chain.to_owned() })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.params.name
    }

    /// Hash of its first block.
    pub fn genesis(&self) -> BlockHash {
        self.params.genesis_hash
    }

    /// The SLIP-44 number in derivation paths: 0 for main's keys, 1 for all others.
    pub fn coin_type(&self) -> u32 {
        u32::from(self.params.address_set != AddressSet::Main)
    }

    /// The address of an output script, if it has one.
    pub fn address(&self, script: &bitcoin::Script) -> Option<Address> {
        Address::from_script(script, self.kind).ok()
    }

    /// Reads an address of this chain. One of another chain is refused by that chain's name.
    pub fn parse_address(&self, text: &str) -> Result<Address> {
        let address: Address<NetworkUnchecked> = text.parse().map_err(|error| {
            let lower = text.to_ascii_lowercase();
            match ["bc1", "tb1", "bcrt1"].iter().any(|start| lower.starts_with(start)) {
                true => failed(format!("the address {text} has a typing error ({error}): copy it again")),
                false => failed(format!("{text:?} is not an address: copy it again, or give a bitcoin: URI")),
            }
        })?;
        if address.is_valid_for_network(self.kind) {
            return address.require_network(self.kind).doing("read the address");
        }
        let of = |kind| address.is_valid_for_network(kind);
        let meant = match () {
            () if of(bitcoin::Network::Bitcoin) => "main",
            () if of(bitcoin::Network::Regtest) && !of(bitcoin::Network::Testnet) => "regtest",
            () => "a test network (test, testnet4 or signet)",
        };
        Err(failed(format!("{text} is an address of {meant}, and this wallet is on {}", self.name())))
    }

    /// Output script of an address of this chain.
    pub fn parse_script(&self, text: &str) -> Result<ScriptBuf> {
        Ok(self.parse_address(text)?.script_pubkey())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests may panic")]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_another_chain_is_refused_by_its_name() {
        let network = Network::load("testnet4").unwrap();
        for (text, meant) in [
            ("bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", "of main"),
            ("1BgGZ9tcN4rm9KBzDn7KprQz87SZ26SAMH", "of main"),
            ("bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080", "of regtest"),
        ] {
            let said = network.parse_address(text).unwrap_err().to_string();
            assert!(said.contains(meant) && said.contains("testnet4"), "{text}: {said}");
        }
        network.parse_address("tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx").unwrap();
        let said = network.parse_address("tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsy").unwrap_err().to_string();
        assert!(said.contains("typing error"), "{said}");
        assert!(network.parse_address("hello").unwrap_err().to_string().contains("not an address"));
    }

    #[test]
    fn an_unknown_chain_is_refused_with_the_names_there_are() {
        assert!(Network::load("mainnet").err().unwrap().to_string().contains("main, test, testnet4, signet, regtest"));
    }
}
