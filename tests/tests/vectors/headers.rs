//! Real headers: proof of work, retargets, times and chain work under the rules of their network.

use super::{network_and_numbers, read};
use bitcoin::block::Header;
use bitcoin::consensus::deserialize;
use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, CompactTarget, Target, Work};
use groat_chain::params::{Buried, Params};
use groat_chain::rejection::Rejection;
use groat_chain::rules::branch::Branch;
use groat_chain::rules::header::{check_header, contextual_check_header};
use groat_chain::rules::{deployment, pow};
use groat_chain::script::Flags;
use groat_tests::data::groat_data;
use std::cell::Cell;
use std::collections::BTreeMap;

/// What files of one kind hold: name, parameters, content.
type Named<T> = Vec<(String, Params, T)>;

/// Part of a branch. Notes when a rule asked for what stands before it; such an answer counts for nothing.
struct Run<'a> {
    start: u32,
    headers: &'a [Header],
    asked_beyond: Cell<bool>,
}

impl<'a> Run<'a> {
    fn new(start: u32, headers: &'a [Header]) -> Run<'a> {
        Run { start, headers, asked_beyond: Cell::new(false) }
    }

    fn at(&self, height: u32) -> &Header {
        if height < self.start {
            self.asked_beyond.set(true);
        }
        &self.headers[height.saturating_sub(self.start) as usize]
    }

    /// What the rules say of the header that follows, where the run is long enough to say.
    fn verdict(&self, header: &Header, params: &Params) -> Option<Result<(), Rejection>> {
        self.asked_beyond.set(false);
        let verdict = contextual_check_header(header, self, params, u32::MAX);
        (!self.asked_beyond.get()).then_some(verdict)
    }
}

impl Branch for Run<'_> {
    fn height(&self) -> u32 {
        self.start + self.headers.len() as u32 - 1
    }
    fn time(&self, height: u32) -> u32 {
        self.at(height).time
    }
    fn bits(&self, height: u32) -> CompactTarget {
        self.at(height).bits
    }
    fn version(&self, height: u32) -> i32 {
        self.at(height).version.to_consensus()
    }
}

fn parse_headers(bytes: &[u8]) -> Vec<Header> {
    assert!(bytes.len().is_multiple_of(80), "{} bytes are no run of headers", bytes.len());
    bytes.chunks_exact(80).map(|header| deserialize(header).unwrap()).collect()
}

/// Every header run of the data: name, parameters, first height, headers.
fn runs() -> Vec<(String, Params, u32, Vec<Header>)> {
    let files = groat_data("headers", ".headers").into_iter();
    files
        .map(|path| {
            let (name, params, numbers) = network_and_numbers(&path);
            let headers = parse_headers(&read(&path));
            let expected = numbers[1] - numbers[0] + 1;
            assert_eq!(headers.len() as u32, expected, "{name}: headers from {} to {}", numbers[0], numbers[1]);
            (name, params, numbers[0], headers)
        })
        .collect()
}

#[test]
fn header_runs_keep_every_rule() {
    for (name, params, start, headers) in runs() {
        let (mut checked, mut retargets) = (0, 0);
        check_header(&headers[0], &params).unwrap_or_else(|rejection| panic!("{name}: first header: {rejection}"));
        if start == 0 {
            assert_eq!(headers[0], params.genesis.header, "{name}: the first header");
        }
        for next in 1..headers.len() {
            let (header, height) = (&headers[next], start + next as u32);
            let parent = &headers[next - 1];
            assert_eq!(header.prev_blockhash, parent.block_hash(), "{name}: parent of height {height}");
            assert_eq!(check_header(header, &params), Ok(()), "{name}: height {height}");
            let permitted = pow::permitted_difficulty_transition(height, parent.bits, header.bits, &params);
            assert!(permitted, "{name}: the bits of height {height} are out of reach of those before");
            if let Some(verdict) = Run::new(start, &headers[..next]).verdict(header, &params) {
                assert_eq!(verdict, Ok(()), "{name}: height {height}");
                checked += 1;
                retargets += u32::from(height.is_multiple_of(params.retarget_interval));
            }
        }
        println!("{name}: {checked} of {} headers on their branch, {retargets} retargets", headers.len());
        // A run that begins elsewhere says nothing of its first ten times, and of one retarget, or of the easy
        // blocks of one period.
        let unknown = match start {
            0 => 1,
            _ if params.min_difficulty_blocks => params.retarget_interval as usize,
            _ => 12,
        };
        assert!(checked + unknown >= headers.len(), "{name}: only {checked} headers could be checked");
    }
}

#[test]
fn a_retarget_under_bip94_differs_from_one_without() {
    let mut differ = 0;
    for (name, params, start, headers) in runs().into_iter().filter(|(_, params, ..)| params.bip94) {
        let without = Params { bip94: false, ..params.clone() };
        for next in 1..headers.len() {
            if (start + next as u32).is_multiple_of(params.retarget_interval) {
                let run = Run::new(start, &headers[..next]);
                assert_eq!(run.verdict(&headers[next], &params), Some(Ok(())), "{name}");
                let verdict = run.verdict(&headers[next], &without);
                assert_eq!(verdict, Some(Err(Rejection::BadDiffBits)), "{name}: without BIP94");
                differ += 1;
            }
        }
    }
    println!("{differ} retargets under BIP94");
}

#[test]
fn a_changed_header_of_a_run_is_refused() {
    for (name, params, start, headers) in runs() {
        let Some((last, before)) = headers.split_last() else { continue };
        let run = Run::new(start, before);
        let Some(verdict) = run.verdict(last, &params) else { continue };
        assert_eq!(verdict, Ok(()), "{name}");
        let harder = Header { bits: CompactTarget::from_consensus(last.bits.to_consensus() - 1), ..*last };
        assert_eq!(run.verdict(&harder, &params), Some(Err(Rejection::BadDiffBits)), "{name}: other bits");
        let old = Header { time: before[before.len() - 11].time, ..*last };
        let early = run.verdict(&old, &params);
        // On a test network another time may ask for other bits, which are judged first.
        let times = [Some(Err(Rejection::TimeTooOld)), Some(Err(Rejection::BadDiffBits))];
        assert!(times[..if params.min_difficulty_blocks { 2 } else { 1 }].contains(&early), "{name}: {early:?}");
        let other = Header { nonce: last.nonce ^ 1, ..*last };
        assert_eq!(check_header(&other, &params), Err(Rejection::HighHash), "{name}: another nonce");
    }
}

#[test]
fn a_stale_header_is_as_good_as_its_sibling() {
    for path in groat_data("headers", ".header") {
        let (name, params, numbers) = network_and_numbers(&path);
        let (height, stale) = (numbers[0], parse_headers(&read(&path))[0]);
        let sibling = runs().into_iter().find(|(_, other, start, headers)| {
            other.name == params.name && (*start..start + headers.len() as u32).contains(&height)
        });
        let Some((_, _, start, headers)) = sibling else { continue };
        let place = (height - start) as usize;
        assert_ne!(stale.block_hash(), headers[place].block_hash(), "{name}");
        assert_eq!(check_header(&stale, &params), Ok(()), "{name}");
        assert_eq!(Run::new(start, &headers[..place]).verdict(&stale, &params), Some(Ok(())), "{name}");
    }
}

/// Headers at single heights: enough for a retarget.
struct Boundaries<'a>(&'a BTreeMap<u32, (Header, Work)>, u32);

impl Branch for Boundaries<'_> {
    fn height(&self) -> u32 {
        self.1
    }
    fn time(&self, height: u32) -> u32 {
        self.0[&height].0.time
    }
    fn bits(&self, height: u32) -> CompactTarget {
        self.0[&height].0.bits
    }
    fn version(&self, _: u32) -> i32 {
        panic!("a retarget asks for no version")
    }
}

/// Every file of period boundaries: headers by height, with the work up to them.
fn boundaries() -> Named<BTreeMap<u32, (Header, Work)>> {
    let files = groat_data("headers", ".csv").into_iter().filter(|path| path.to_string_lossy().contains("boundaries"));
    files
        .map(|path| {
            let (name, params, _) = network_and_numbers(&path);
            let text = String::from_utf8(read(&path)).unwrap();
            let boundary = |line: &str| {
                let cells: Vec<_> = line.split(',').collect();
                let header = bitcoin::consensus::encode::deserialize_hex(cells[1]).unwrap();
                (cells[0].parse().unwrap(), (header, Work::from_unprefixed_hex(cells[2]).unwrap()))
            };
            (name, params, text.lines().skip(1).map(boundary).collect())
        })
        .collect()
}

#[test]
fn every_retarget_and_the_work_at_it_are_recomputed() {
    for (name, params, boundaries) in boundaries() {
        let (mut retargets, interval) = (0, params.retarget_interval);
        for (&height, (header, work)) in &boundaries {
            assert_eq!(check_header(header, &params), Ok(()), "{name}: height {height}");
            if height.is_multiple_of(interval) && height > 0 {
                let branch = Boundaries(&boundaries, height - 1);
                let (parent, before) = boundaries[&(height - 1)];
                let next = pow::next_work_required(&branch, header.time, &params);
                assert_eq!(next, header.bits, "{name}: bits of height {height}");
                assert_eq!(header.prev_blockhash, parent.block_hash(), "{name}: height {height}");
                assert_eq!(*work, before + pow::block_work(header.bits), "{name}: work at height {height}");
                retargets += 1;
            }
            if (height + 1).is_multiple_of(interval) {
                let first = height + 1 - interval;
                let sum = (first..height).fold(boundaries[&first].1, |sum, _| sum + pow::block_work(header.bits));
                assert_eq!(*work, sum, "{name}: work at height {height}");
            }
        }
        println!("{name}: {retargets} retargets");
        assert!(retargets > 0, "{name}: no retarget");
    }
}

/// The checkpoints of bitcoinj: height, work up to and including the header, header.
fn bitcoinj() -> Named<Vec<(u32, Work, Header)>> {
    let files = groat_data("headers", ".txt").into_iter();
    files
        .filter(|path| path.to_string_lossy().contains("bitcoinj"))
        .map(|path| {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            let params = Params::by_name(if name.ends_with("mainnet") { "main" } else { "testnet3" }).unwrap();
            let text = String::from_utf8(read(&path)).unwrap();
            let lines = text.lines().filter(|line| line.len() == 128);
            let checkpoints = lines.map(|line| {
                let bytes = base64(line);
                let mut work = [0; 32];
                work[20..].copy_from_slice(&bytes[..12]);
                let height = u32::from_be_bytes(bytes[12..16].try_into().unwrap());
                (height, Work::from_be_bytes(work), deserialize(&bytes[16..]).unwrap())
            });
            (name, params, checkpoints.collect())
        })
        .collect()
}

fn base64(text: &str) -> Vec<u8> {
    let value = |c: u8| match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a' + 26,
        b'0'..=b'9' => c - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        other => panic!("{} is no base64", other as char),
    };
    let groups = text.as_bytes().chunks(4).flat_map(|group| {
        let bits = group.iter().fold(0u32, |bits, &c| bits << 6 | u32::from(value(c)));
        bits.to_be_bytes()[1..].to_vec()
    });
    groups.collect()
}

#[test]
fn checkpoints_carry_their_work() {
    for (name, params, checkpoints) in bitcoinj() {
        let first = pow::block_work(params.genesis.header.bits);
        let (mut at, mut bits, mut sum) = (0, params.genesis.header.bits, first);
        for (height, work, header) in &checkpoints {
            assert_eq!(check_header(header, &params), Ok(()), "{name}: height {height}");
            assert_eq!(*height, at + params.retarget_interval, "{name}: a checkpoint each period");
            sum = (at + 1..*height).fold(sum, |sum, _| sum + pow::block_work(bits)) + pow::block_work(header.bits);
            assert_eq!(*work, sum, "{name}: work at height {height}");
            let permitted = pow::permitted_difficulty_transition(*height, bits, header.bits, &params);
            assert!(permitted, "{name}: bits of height {height}");
            (at, bits) = (*height, header.bits);
        }
        println!("{name}: {} checkpoints", checkpoints.len());
        assert!(checkpoints.len() > 1, "{name}: no checkpoints");
    }
}

/// The checkpoints of electrum: for each period the hash of its last block and its target. (In the file a target
/// stands beside the period before the one that has it; where it is zero, only the hashes are known.)
fn electrum() -> Named<Vec<(BlockHash, Target)>> {
    let files = groat_data("headers", ".json").into_iter();
    files
        .filter(|path| path.to_string_lossy().contains("electrum"))
        .map(|path| {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            let network = name.rsplit('-').next().unwrap();
            let params = Params::by_name(if network == "mainnet" { "main" } else { network }).unwrap();
            let periods: Vec<(BlockHash, Box<serde_json::value::RawValue>)> =
                serde_json::from_slice(&read(&path)).unwrap();
            let hashes = periods.iter().map(|(hash, _)| *hash);
            let first = pow::from_compact(params.genesis.header.bits).target;
            let targets = std::iter::once(first).chain(periods.iter().map(|(_, number)| decimal(number.get())));
            (name, params, hashes.zip(targets).collect())
        })
        .collect()
}

/// A number of up to 256 bits in decimal digits.
fn decimal(text: &str) -> Target {
    let mut bytes = [0u8; 32];
    for digit in text.bytes() {
        let mut carry = u32::from(digit - b'0');
        for byte in bytes.iter_mut().rev() {
            carry += u32::from(*byte) * 10;
            *byte = carry as u8;
            carry >>= 8;
        }
        assert_eq!(carry, 0, "{text} has more than 256 bits");
    }
    Target::from_be_bytes(bytes)
}

#[test]
fn period_targets_agree_with_hashes_work_and_the_work_that_core_asks_for() {
    let (boundaries, bitcoinj, runs) = (boundaries(), bitcoinj(), runs());
    for (name, params, periods) in electrum() {
        for (_, _, start, headers) in runs.iter().filter(|(_, other, ..)| other.name == params.name) {
            for (height, header) in (*start..).zip(headers).filter(|(height, _)| (height + 1).is_multiple_of(2016)) {
                let period = height as usize / 2016;
                assert_eq!(header.block_hash(), periods[period].0, "{name}: height {height}");
            }
        }
        let only_hashes = periods.iter().skip(1).all(|(_, target)| *target == Target::ZERO);
        if only_hashes {
            let limit = pow::to_compact(params.pow_limit);
            let met = periods.iter().all(|(hash, _)| pow::check_proof_of_work(*hash, limit, &params).is_ok());
            assert!(met, "{name}: a hash above the limit");
            println!("{name}: {} hashes", periods.len());
            continue;
        }
        let mut sum = Work::from_be_bytes([0; 32]);
        let mut old = params.genesis.header.bits;
        for (number, (hash, target)) in periods.iter().enumerate() {
            let (first, bits) = (number as u32 * params.retarget_interval, pow::to_compact(*target));
            assert_eq!(pow::from_compact(bits).target, *target, "{name}: period {number}: bits and back");
            assert_eq!(pow::check_proof_of_work(*hash, bits, &params), Ok(()), "{name}: period {number}");
            assert!(pow::permitted_difficulty_transition(first, old, bits, &params), "{name}: period {number}");
            let before = sum;
            sum = (0..params.retarget_interval).fold(sum, |sum, _| sum + pow::block_work(bits));
            let last = first + params.retarget_interval - 1;
            for (_, _, headers) in boundaries.iter().filter(|(_, other, _)| other.name == params.name) {
                if let Some((header, work)) = headers.get(&last) {
                    assert_eq!((header.block_hash(), *work), (*hash, sum), "{name}: height {last}");
                }
            }
            for (_, _, checkpoints) in bitcoinj.iter().filter(|(_, other, _)| other.name == params.name) {
                if let Some((_, work, header)) = checkpoints.iter().find(|(height, ..)| *height == first) {
                    assert_eq!((header.bits, *work), (bits, before + pow::block_work(bits)), "{name}: height {first}");
                }
            }
            old = bits;
        }
        println!("{name}: {} periods", periods.len());
        // The height of Core's assumed-valid block, whose work is the minimum.
        assert_eq!(params.name, "main", "{name}: of which network is the height below?");
        let height = 938_343;
        let blocks = periods.iter().flat_map(|(_, target)| {
            let work = pow::block_work(pow::to_compact(*target));
            std::iter::repeat_n(work, params.retarget_interval as usize)
        });
        let zero = Work::from_be_bytes([0; 32]);
        let up_to = |count: usize| blocks.clone().take(count).fold(zero, |sum, work| sum + work);
        assert_eq!(up_to(height + 1), params.minimum_chain_work, "{name}: work at height {height}");
    }
}

#[test]
fn a_quick_alternative_chain_is_four_times_harder_after_a_period() {
    for path in groat_data("headers", "_alt.json") {
        let data: serde_json::Value = serde_json::from_slice(&read(&path)).unwrap();
        let number = |key: &str, at: usize| u32::try_from(data[key][at].as_u64().unwrap()).unwrap();
        let params = Params::main();
        let mut headers = vec![params.genesis.header];
        for height in 1..=data["nonces"].as_array().unwrap().len() as u32 {
            let coinbase = alternative_coinbase(height);
            let header = Header {
                version: bitcoin::block::Version::from_consensus(0x2000_0000),
                prev_blockhash: headers[height as usize - 1].block_hash(),
                merkle_root: bitcoin::TxMerkleNode::from_byte_array(coinbase.compute_txid().to_byte_array()),
                time: number("timestamps", height as usize - 1),
                bits: CompactTarget::from_consensus(if height < 2016 { 0x1d00_ffff } else { 0x1c3f_ffc0 }),
                nonce: number("nonces", height as usize - 1),
            };
            assert_eq!(check_header(&header, &params), Ok(()), "height {height}");
            let verdict = Run::new(0, &headers).verdict(&header, &params);
            assert_eq!(verdict, Some(Ok(())), "height {height}");
            headers.push(header);
        }
        assert!(headers.len() >= 2016, "{} headers", headers.len());
    }
}

/// The coinbase of the alternative chain, which its file leaves out: height, nothing, and a key of BIP32's first vector.
fn alternative_coinbase(height: u32) -> bitcoin::Transaction {
    let script = bitcoin::script::Builder::new().push_int(i64::from(height));
    let script = if height <= 16 { script.push_int(0) } else { script };
    let paid = "76a914eadbac7f36c37e39361168b7aaee3cb24a25312d88ac";
    bitcoin::Transaction {
        version: bitcoin::transaction::Version::TWO,
        lock_time: bitcoin::absolute::LockTime::ZERO,
        input: vec![bitcoin::TxIn {
            previous_output: bitcoin::OutPoint::null(),
            script_sig: script.into_script(),
            sequence: bitcoin::Sequence::MAX,
            witness: bitcoin::Witness::new(),
        }],
        output: vec![bitcoin::TxOut {
            value: bitcoin::Amount::from_sat(5_000_000_000),
            script_pubkey: bitcoin::ScriptBuf::from_hex(paid).unwrap(),
        }],
    }
}

#[test]
fn exceptions_and_buried_heights_are_those_of_core() {
    for path in groat_data("consensus-oddities", "exceptions.json") {
        let data: serde_json::Value = serde_json::from_slice(&read(&path)).unwrap();
        let hash = |value: &serde_json::Value| value.as_str().unwrap().parse::<BlockHash>().unwrap();
        let network = |name: &str| Params::by_name(if name == "mainnet" { "main" } else { name }).unwrap();
        for exception in data["script_flag_exceptions"].as_array().unwrap() {
            let params = network(exception["network"].as_str().unwrap());
            let flags = match exception["flags"].as_str().unwrap() {
                "NONE" => Flags::NONE,
                "P2SH,WITNESS" => Flags::P2SH | Flags::WITNESS,
                other => panic!("flags {other}"),
            };
            assert!(params.script_flag_exceptions.contains(&(hash(&exception["hash"]), flags)), "{exception}");
            let height = exception["height"].as_u64().unwrap() as u32;
            let other = deployment::script_flags(height, params.genesis_hash, &params);
            let here = deployment::script_flags(height, hash(&exception["hash"]), &params);
            assert!(other.contains(Flags::TAPROOT) && !here.contains(Flags::TAPROOT), "{exception}");
        }
        let main = Params::main();
        let allowed = data["bip30"]["repeats_allowed"].as_array().unwrap();
        let allowed = allowed.iter().map(|block| (block["height"].as_u64().unwrap() as u32, hash(&block["hash"])));
        assert_eq!(main.bip30_exceptions, allowed.collect::<Vec<_>>(), "BIP30");
        for (name, heights) in data["buried_heights"].as_object().unwrap() {
            let params = network(name);
            for (key, value) in heights.as_object().unwrap() {
                match key.as_str() {
                    "bip34_hash" => assert_eq!(params.bip34_hash, Some(hash(value)), "{name}"),
                    "bip94" => assert_eq!(params.bip94, value.as_bool().unwrap(), "{name}"),
                    "all" => assert!(Buried::ALL.iter().all(|&d| params.activation_height(d) == 1), "{name}"),
                    _ => {
                        let buried = Buried::ALL.into_iter().find(|deployment| deployment.name() == key).unwrap();
                        let height = u64::from(params.activation_height(buried));
                        assert_eq!(Some(height), value.as_u64(), "{name}: {key}");
                    }
                }
            }
        }
    }
}
