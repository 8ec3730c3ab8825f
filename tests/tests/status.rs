//! What a node says of itself while it syncs: what limits it and how far it is. `getnodestatus`, `/metrics` and
//! `groat status` say the same.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use groat_tests::bitcoind::{Rpc, free_port};
use groat_tests::chaingen::{block_files, full};
use groat_tests::groatd::{Groatd, repeat};
use groat_tests::running::{PATIENCE, Running};
use serde_json::{Value, json};

use crate::http::get;
use crate::wallet::{Groat, Node};

/// What changes between two questions.
const LIVELY: &[&str] = &["uptime_seconds", "tip_age_seconds", "resident_memory_bytes", "disk_free_bytes", "rpc_calls"];

fn own(node: &Running) -> Value {
    node.rpc.call("getnodestatus", json!([])).unwrap()
}

/// A gauge by its name, and by its label where it has one.
fn flat(own: &Value) -> BTreeMap<String, f64> {
    let mut all = BTreeMap::new();
    for (name, value) in own.as_object().unwrap() {
        match value {
            Value::Object(values) => {
                all.extend(values.iter().map(|(label, value)| (format!("{name} {label}"), value.as_f64().unwrap())));
            }
            value => drop(all.insert(name.clone(), value.as_f64().unwrap())),
        }
    }
    all
}

/// The gauges of `/metrics`, in the same shape.
fn scraped(metrics: &Rpc) -> BTreeMap<String, f64> {
    let text = get(metrics, "/metrics").text();
    let gauges = text.lines().filter(|line| !line.starts_with('#') && !line.contains("_total "));
    let gauge = |line: &str| {
        let (name, value) = line.strip_prefix("groat_").unwrap().rsplit_once(' ').unwrap();
        let name = match name.split_once('{') {
            Some((name, label)) => format!("{name} {}", label.split('"').nth(1).unwrap()),
            None => name.to_owned(),
        };
        (name, value.parse().unwrap())
    };
    gauges.map(gauge).collect()
}

#[test]
fn what_limits_a_sync_is_named_the_same_everywhere() {
    let folder = tempfile::tempdir().unwrap();
    let made = folder.path().join("made");
    let summary = full::generate(&full::Recipe { seed: 5, blocks: 2, fan_out: 2, keys: 50 }, &made).unwrap();
    let full = Groatd::new("regtest", &folder.path().join("full"));
    full.import(&block_files(&made)).succeeded();
    let full = Running::start(&full, &["--connect=0"]);
    let empty = Groatd::new("regtest", &folder.path().join("empty"));
    let port = free_port();
    let options = ["--connect=0", "--par=1", "--assumevalid=0", &format!("--metrics={port}")];
    let node = Running::start(&empty, &options);
    let groat = Groat::new(&Node { rpc: &node.rpc, cookie: empty.chain_folder().join(".cookie") });

    // With nobody to ask it has nothing to do.
    let begun = Instant::now();
    while own(&node)["wait_peers_ratio"].as_f64() < Some(0.5) {
        assert!(begun.elapsed() < PATIENCE, "expected: it waits for peers\n{}\n{}", own(&node), repeat());
        std::thread::sleep(Duration::from_millis(100));
    }
    let said = groat.json("none", &["status"]);
    assert_eq!((&said["syncing"], &said["peers"], &said["tip_height"]), (&json!(true), &json!(0), &json!(0)), "{said}");
    assert!(said["limits"]["peers_percent"].as_f64() > Some(50.0), "{said}");
    assert!(said["advice"].as_str().unwrap().contains("there are no peers"), "{said}");

    // Blocks full of signatures, for one thread: the processor is what takes the time.
    node.rpc.call("addnode", json!([full.peers.to_string(), "add"])).unwrap();
    let mut last = 0;
    while last < u64::from(summary.height) {
        let said = groat.json("none", &["status"]);
        let (height, headers) = (said["tip_height"].as_u64().unwrap(), said["headers"].as_u64().unwrap());
        assert!(last <= height && height <= headers, "expected: it goes up, under the headers\n{said}");
        assert!((0.0..=1.0).contains(&said["progress"].as_f64().unwrap()), "{said}");
        last = height;
        assert!(begun.elapsed() < 2 * PATIENCE, "expected: all {} blocks\n{said}\n{}", summary.height, repeat());
    }
    let told = own(&node);
    let share = |key: &str| told[key].as_f64().unwrap();
    assert!(share("busy_cpu_ratio") > share("wait_disk_ratio"), "expected: the processor more than the disk\n{told}");
    let all = share("wait_peers_ratio") + share("wait_disk_ratio") + share("busy_cpu_ratio");
    assert!((0.99..1.01).contains(&all), "expected: all of the time\n{told}");

    let (told, scraped) = (flat(&own(&node)), scraped(&Rpc::new(SocketAddr::from(([127, 0, 0, 1], port)), "")));
    assert!(told.keys().eq(scraped.keys()), "expected: the same gauges\n{told:?}\n{scraped:?}\n{}", repeat());
    for (name, value) in told.iter().filter(|(name, _)| !LIVELY.contains(&name.as_str()) && !name.ends_with("_ratio")) {
        assert_eq!(*value, scraped[name], "{name} of getnodestatus (left) and of /metrics (right); {}", repeat());
    }
    [node, full].into_iter().for_each(Running::stop);
}
