//! A wallet on disk: a folder with the public part (`wallet.sqlite`) and the secret (`seed.enc`), both readable by the
//! owner alone, and a lock while a command works with it. Knows no node.

use std::collections::{BTreeSet, HashMap};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bdk_wallet::chain::{BlockId, ChainPosition, ConfirmationBlockTime, local_chain};
use bdk_wallet::rusqlite::{Connection, OptionalExtension, params};
use bdk_wallet::{AddressInfo, ChangeSet, KeychainKind, LoadError, Wallet, WalletPersister};
use bitcoin::{BlockHash, Txid};

use crate::condense::condense;
use crate::error::{ANEW, Doing, Result, failed, usage};
use crate::keys::{Account, Kind};
use crate::network::Network;
use crate::prompt::Prompt;
use crate::seed;

/// What is said of a wallet whose first block is not the chain's.
const OTHER_CHAIN: &str = "or of another chain";
/// The public part of a wallet.
const DATABASE: &str = "wallet.sqlite";
/// Scripts beyond the last one used that are recognised: addresses given away and not yet paid.
pub const LOOKAHEAD: u32 = 200;
/// Core's `COINBASE_MATURITY`; a network of one's own may have another.
pub const COINBASE_MATURITY: u32 = 100;
/// How long a command waits for another one that has the wallet.
const PATIENCE: Duration = Duration::from_secs(10);

/// Facts about a wallet, by name, in a table of our own.
mod fact {
    pub const CHAIN: &str = "chain";
    pub const KIND: &str = "kind";
    pub const PASSPHRASE: &str = "bip39_passphrase";
    pub const BIRTHDAY_HEIGHT: &str = "birthday_height";
    pub const BIRTHDAY_TIME: &str = "birthday_time";
}

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS groat_fact (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS groat_label
        (type TEXT NOT NULL, ref TEXT NOT NULL, label TEXT NOT NULL, PRIMARY KEY (type, ref)) STRICT;
    CREATE TABLE IF NOT EXISTS groat_seen (id INTEGER PRIMARY KEY, mempool BLOB NOT NULL) STRICT;";

/// From when on a wallet may have been paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Birthday {
    /// Height of a block.
    Height(u32),
    /// Unix time; the node knows the height.
    Time(u64),
}

impl Birthday {
    fn fact(self) -> (&'static str, String) {
        match self {
            Birthday::Height(height) => (fact::BIRTHDAY_HEIGHT, height.to_string()),
            Birthday::Time(time) => (fact::BIRTHDAY_TIME, time.to_string()),
        }
    }
}

/// What a wallet is made of.
pub struct Plan<'a> {
    /// Its name.
    pub name: &'a str,
    /// Descriptor for addresses to give away.
    pub external: String,
    /// Descriptor for change, if another one.
    pub internal: Option<String>,
    /// What the descriptors are, when the words made them.
    pub kind: Option<Kind>,
    /// Whether a BIP39 passphrase is needed beside the words.
    pub passphrase: bool,
    /// From when on to look for payments.
    pub birthday: Birthday,
    /// The text of `seed.enc`; none for a wallet that only watches.
    pub seed: Option<String>,
}

/// A wallet that is open. The lock ends with it.
pub struct Store {
    /// Its name.
    pub name: String,
    /// Its folder.
    pub folder: PathBuf,
    /// Keys, addresses, coins and transactions.
    pub wallet: Wallet,
    /// Heights of transactions that `wallet` sees in another block than they are in.
    heights: HashMap<Txid, u32>,
    database: Connection,
    _lock: File,
}

/// Names of the wallets in a folder, in order.
pub fn names(wallets: &Path) -> Result<Vec<String>> {
    let Ok(entries) = std::fs::read_dir(wallets) else { return Ok(Vec::new()) };
    let mut names: Vec<String> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.join(DATABASE).is_file())
        .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
        // One that is being made, or deleted.
        .filter(|name| !name.starts_with('.'))
        .collect();
    names.sort();
    Ok(names)
}

/// Refuses a name that could not be a folder's, or that is taken.
pub fn check_new(wallets: &Path, name: &str) -> Result<()> {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_".contains(letter);
    if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
        return Err(usage(format!("{name:?} cannot be a wallet's name: take letters, digits, - and _, at most 64")));
    }
    if wallets.join(name).exists() {
        return Err(failed(format!("there is a wallet {name:?} already, in {}: take another name", wallets.display())));
    }
    Ok(())
}

/// Writes a file that only its owner may read, whole or not at all.
pub fn write_private(path: &Path, text: &str) -> Result<()> {
    let doing = || format!("write {}", path.display());
    let next = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&next).doing(doing())?;
    file.write_all(text.as_bytes()).doing(doing())?;
    file.sync_all().doing(doing())?;
    std::fs::rename(&next, path).doing(doing())?;
    sync_folder(path.parent().unwrap_or(Path::new(".")))
}

/// Makes sure that what was made or renamed in a folder is still so after a loss of power.
fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|file| file.sync_all()).doing(format!("write {}", folder.display()))
}

fn lock(folder: &Path, patience: Duration) -> Result<File> {
    let path = folder.join(".lock");
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = file.doing(format!("open {}", path.display()))?;
    let begun = Instant::now();
    while file.try_lock().is_err() {
        if begun.elapsed() >= patience {
            return Err(failed(format!("another command works with the wallet in {}: wait for it", folder.display())));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(file)
}

/// The words of the wallet in this folder, whatever has become of its other file.
pub fn words_in(folder: &Path, prompt: &Prompt) -> Result<bdk_wallet::bip39::Mnemonic> {
    let text = std::fs::read_to_string(folder.join("seed.enc")).doing("read seed.enc")?;
    seed::open(&text, &prompt.password()?)
}

impl Store {
    /// Makes a wallet: aside, and then under its name, so that it is there whole or not at all.
    pub fn create(wallets: &Path, network: &Network, plan: Plan<'_>) -> Result<Store> {
        check_new(wallets, plan.name)?;
        let (name, folder, aside) = (plan.name, wallets.join(plan.name), wallets.join(format!(".{}.new", plan.name)));
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&aside)
            .doing(format!("make {}", aside.display()))?;
        // Held by another `create` of this name, or left by one that was stopped.
        let lock = lock(&aside, Duration::ZERO)?;
        for name in [DATABASE, "wallet.sqlite-journal"] {
            let _ = std::fs::remove_file(aside.join(name));
        }
        let made = Store::fill(&aside, network, plan)
            // Refused where there is such a folder with something in it: nothing is ever overwritten.
            .and_then(|()| std::fs::rename(&aside, &folder).doing(format!("make {}", folder.display())));
        if let Err(error) = made {
            // It holds nothing but what was just written.
            let _ = std::fs::remove_dir_all(&aside);
            return Err(error);
        }
        drop(lock);
        sync_folder(wallets)?;
        Store::open(wallets, name, network)
    }

    fn fill(folder: &Path, network: &Network, plan: Plan<'_>) -> Result<()> {
        if let Some(seed) = &plan.seed {
            write_private(&folder.join("seed.enc"), seed)?;
        }
        let path = folder.join(DATABASE);
        write_private(&path, "")?;
        let mut database = open_database(&path)?;
        let create = match plan.internal {
            Some(internal) => Wallet::create(plan.external, internal),
            None => Wallet::create_single(plan.external),
        };
        let mut wallet = create
            .network(network.kind)
            .genesis_hash(network.genesis())
            .lookahead(LOOKAHEAD)
            .use_spk_cache(true)
            .create_wallet_no_persist()
            .doing("make the wallet")?;
        Connection::initialize(&mut database).doing("make the wallet")?;
        Connection::persist(&mut database, &wallet.take_staged().unwrap_or_default()).doing("make the wallet")?;
        let (birthday, time) = plan.birthday.fact();
        let facts = [
            (fact::CHAIN, network.name()),
            (fact::KIND, plan.kind.map_or("descriptor", Kind::name)),
            (fact::PASSPHRASE, if plan.passphrase { "yes" } else { "no" }),
            (birthday, &time),
        ];
        facts.iter().try_for_each(|(name, value)| set(&database, name, value))
    }

    /// Opens a wallet, waiting a little for a command that has it.
    pub fn open(wallets: &Path, name: &str, network: &Network) -> Result<Store> {
        Store::open_within(wallets, name, network, PATIENCE)
    }

    /// Opens a wallet, or fails when a command has it: a payment given twice by mistake is made once.
    pub fn open_alone(wallets: &Path, name: &str, network: &Network) -> Result<Store> {
        Store::open_within(wallets, name, network, Duration::ZERO)
    }

    fn open_within(wallets: &Path, name: &str, network: &Network, patience: Duration) -> Result<Store> {
        let folder = wallets.join(name);
        let path = folder.join(DATABASE);
        if !path.is_file() {
            return Err(failed(format!(
                "there is no wallet {name:?} in {}: `groat list` shows all",
                wallets.display()
            )));
        }
        let lock = lock(&folder, patience)?;
        let mut database = open_database(&path)?;
        let (wallet, heights) = load(&mut database, network).map_err(|text| damaged(&path, &text))?;
        Ok(Store { name: name.into(), folder, wallet, heights, database, _lock: lock })
    }

    /// Writes what has changed.
    pub fn save(&mut self) -> Result<()> {
        if let Some(change) = self.wallet.staged() {
            Connection::persist(&mut self.database, change).doing("write the wallet")?;
            self.wallet.take_staged();
        }
        Ok(())
    }

    /// Writes what has changed, and reads all again.
    pub fn reload(&mut self, network: &Network) -> Result<()> {
        self.save()?;
        (self.wallet, self.heights) = load(&mut self.database, network).map_err(failed)?;
        Ok(())
    }

    /// Deletes it.
    pub fn delete(self) -> Result<()> {
        let doing = || format!("delete {}", self.folder.display());
        // Under another name first: half of a wallet is never taken for one.
        let aside = self.folder.with_file_name(format!(".{}.deleted", self.name));
        let _ = std::fs::remove_dir_all(&aside);
        std::fs::rename(&self.folder, &aside).doing(doing())?;
        std::fs::remove_dir_all(&aside).doing(doing())
    }

    /// Writes a copy of it into a new folder, which is a wallet wherever it is put among wallets.
    pub fn copy_to(&self, folder: &Path) -> Result<()> {
        let doing = || format!("write {}", folder.display());
        std::fs::DirBuilder::new().mode(0o700).create(folder).doing(doing())?;
        for name in ["seed.enc", DATABASE] {
            let (from, to) = (self.folder.join(name), folder.join(name));
            if from.is_file() {
                let mut copy = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&to).doing(doing())?;
                // No command writes in it meanwhile: the lock is held.
                std::io::copy(&mut File::open(from).doing(doing())?, &mut copy).doing(doing())?;
                copy.sync_all().doing(doing())?;
            }
        }
        sync_folder(folder)
    }

    /// All blocks that are remembered, the last one first. `wallet` holds few of them.
    pub fn blocks(&mut self) -> Result<Vec<(u32, BlockHash)>> {
        let known = self.database.transaction().doing("read the wallet")?;
        let known = local_chain::ChangeSet::from_sqlite(&known).doing("read the wallet")?;
        Ok(known.blocks.into_iter().rev().filter_map(|(height, hash)| Some((height, hash?))).collect())
    }

    /// Whether a transaction is in no block.
    pub fn has_waiting(&self) -> bool {
        let blocks: BTreeSet<BlockId> = self.wallet.checkpoints().map(|checkpoint| checkpoint.block_id()).collect();
        let confirmed = |anchor: &ConfirmationBlockTime| blocks.contains(&anchor.block_id);
        self.wallet.tx_graph().full_txs().any(|node| !node.anchors.iter().any(confirmed))
    }

    /// Forgets the blocks from this height on; genesis stays.
    pub fn forget_from(&mut self, height: u32, network: &Network) -> Result<()> {
        self.save()?;
        let stale = self.blocks()?.into_iter().map(|(height, _)| height).take_while(|known| *known >= height.max(1));
        let mut change = ChangeSet::default();
        change.local_chain.blocks.extend(stale.map(|height| (height, None)));
        Connection::persist(&mut self.database, &change).doing("write the wallet")?;
        self.reload(network)
    }

    /// Derives an address again: scripts are kept in the file, and what is paid to a damaged one is lost.
    pub fn check_address(&self, info: &AddressInfo) -> Result<()> {
        let derived = self.wallet.public_descriptor(info.keychain).at_derivation_index(info.index);
        if derived.doing("derive the address")?.script_pubkey() == info.address.script_pubkey() {
            return Ok(());
        }
        Err(damaged(&self.folder.join(DATABASE), &format!("address {} is not the one that its keys give", info.index)))
    }

    /// Height at which a transaction is confirmed; none while it waits.
    pub fn height_of(&self, txid: &Txid, position: &ChainPosition<ConfirmationBlockTime>) -> Option<u32> {
        match position {
            ChainPosition::Confirmed { anchor, .. } => {
                Some(self.heights.get(txid).copied().unwrap_or(anchor.block_id.height))
            }
            ChainPosition::Unconfirmed { .. } => None,
        }
    }

    fn get(&self, name: &str) -> Result<Option<String>> {
        let query = "SELECT value FROM groat_fact WHERE name = ?";
        self.database.query_row(query, [name], |row| row.get(0)).optional().doing("read the wallet")
    }

    /// From when on it may have been paid.
    pub fn birthday(&self) -> Result<Birthday> {
        let number = |name| Ok(self.get(name)?.and_then(|text| text.parse::<u64>().ok()));
        if let Some(height) = number(fact::BIRTHDAY_HEIGHT)? {
            return Ok(Birthday::Height(height as u32));
        }
        Ok(number(fact::BIRTHDAY_TIME)?.map_or(Birthday::Height(0), Birthday::Time))
    }

    /// Changes from when on it may have been paid.
    pub fn set_birthday(&self, birthday: Birthday) -> Result<()> {
        let (name, value) = birthday.fact();
        set(&self.database, name, &value)
    }

    /// `taproot`, `segwit` or `descriptor`.
    pub fn kind(&self) -> Result<String> {
        Ok(self.get(fact::KIND)?.unwrap_or_else(|| "descriptor".into()))
    }

    /// Whether a BIP39 passphrase is needed beside the words.
    pub fn has_passphrase(&self) -> Result<bool> {
        Ok(self.get(fact::PASSPHRASE)?.as_deref() == Some("yes"))
    }

    /// Whether there are no private keys.
    pub fn watch_only(&self) -> bool {
        !self.seed_path().is_file()
    }

    /// Where the secret is.
    pub fn seed_path(&self) -> PathBuf {
        self.folder.join("seed.enc")
    }

    /// The words, with the wallet password asked for.
    pub fn words(&self, prompt: &Prompt) -> Result<bdk_wallet::bip39::Mnemonic> {
        if self.watch_only() {
            let name = &self.name;
            return Err(failed(format!(
                "wallet {name:?} only watches and has no keys: `groat psbt` makes what another signs"
            )));
        }
        words_in(&self.folder, prompt)
    }

    /// The keys, with the wallet password asked for, and the BIP39 passphrase where there is one.
    pub fn account(&self, network: &Network, prompt: &Prompt) -> Result<Account> {
        let words = self.words(prompt)?;
        let passphrase = if self.has_passphrase()? { prompt.passphrase()? } else { String::new().into() };
        let kind = if self.kind()? == Kind::Segwit.name() { Kind::Segwit } else { Kind::Taproot };
        let account = Account::new(&words, &passphrase, kind, network)?;
        let own = self.wallet.public_descriptor(KeychainKind::External).to_string();
        if !own.starts_with(&account.public[0]) {
            return Err(failed("wrong BIP39 passphrase: it gives other keys than this wallet's; try again"));
        }
        Ok(account)
    }

    /// The label of a thing (`tx`, `addr`, `output`), by its reference.
    pub fn label(&self, kind: &str, reference: &str) -> Result<Option<String>> {
        let query = "SELECT label FROM groat_label WHERE type = ? AND ref = ?";
        self.database.query_row(query, [kind, reference], |row| row.get(0)).optional().doing("read the wallet")
    }

    /// Gives a thing a label; an empty one takes it away.
    pub fn set_label(&self, kind: &str, reference: &str, label: &str) -> Result<()> {
        let done = if label.is_empty() {
            self.database.execute("DELETE FROM groat_label WHERE type = ? AND ref = ?", [kind, reference])
        } else {
            let query = "INSERT OR REPLACE INTO groat_label (type, ref, label) VALUES (?, ?, ?)";
            self.database.execute(query, [kind, reference, label])
        };
        done.doing("write the wallet").map(drop)
    }

    /// All labels: type, reference, label.
    pub fn labels(&self) -> Result<Vec<[String; 3]>> {
        let mut query = self
            .database
            .prepare("SELECT type, ref, label FROM groat_label ORDER BY type, ref")
            .doing("read the wallet")?;
        let rows = query.query_map([], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?])).doing("read the wallet")?;
        rows.collect::<std::result::Result<_, _>>().doing("read the wallet")
    }

    /// The beginnings of the mempool's transaction ids at the last look, sorted.
    pub fn seen_mempool(&self) -> Result<Vec<u64>> {
        let query = "SELECT mempool FROM groat_seen WHERE id = 0";
        let blob: Option<Vec<u8>> =
            self.database.query_row(query, [], |row| row.get(0)).optional().doing("read the wallet")?;
        Ok(blob.unwrap_or_default().as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect())
    }

    /// Remembers them.
    pub fn set_seen_mempool(&self, seen: &[u64]) -> Result<()> {
        let blob: Vec<u8> = seen.iter().flat_map(|id| id.to_le_bytes()).collect();
        let query = "INSERT OR REPLACE INTO groat_seen (id, mempool) VALUES (0, ?)";
        self.database.execute(query, params![blob]).doing("write the wallet").map(drop)
    }
}

fn set(database: &Connection, name: &str, value: &str) -> Result<()> {
    let query = "INSERT OR REPLACE INTO groat_fact (name, value) VALUES (?, ?)";
    database.execute(query, [name, value]).doing("write the wallet").map(drop)
}

fn open_database(path: &Path) -> Result<Connection> {
    let database = Connection::open(path).doing(format!("open {}", path.display()))?;
    database.execute_batch(TABLES).map_err(|error| damaged(path, &error.to_string()))?;
    Ok(database)
}

fn load(database: &mut Connection, network: &Network) -> std::result::Result<(Wallet, HashMap<Txid, u32>), String> {
    let mut stored = Connection::initialize(database).map_err(|error| error.to_string())?;
    // The library knows Bitcoin's own maturity.
    let heights = condense(&mut stored, network.params.coinbase_maturity.max(COINBASE_MATURITY));
    let wallet = Wallet::load()
        .check_network(network.kind)
        .check_genesis_hash(network.genesis())
        .lookahead(LOOKAHEAD)
        .use_spk_cache(true)
        .load_wallet_no_persist(stored)
        .map_err(|error| match error {
            LoadError::Mismatch(mismatch) => format!("{OTHER_CHAIN}: {mismatch}"),
            other => other.to_string(),
        })?
        .ok_or("there is no wallet in it")?;
    Ok((wallet, heights))
}

fn damaged(path: &Path, text: &str) -> crate::error::Error {
    let hint = if text.contains(OTHER_CHAIN) { "; if so, give that chain with --chain" } else { "" };
    failed(format!("{} is damaged ({text}{hint}): {ANEW}", path.display()))
}
