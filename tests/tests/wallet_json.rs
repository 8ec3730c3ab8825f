//! The answers of `groat` under `--json`, key by key: what programs rely on. A change here breaks them.

use groat_tests::groatd::repeat;
use serde_json::Value;

use crate::wallet::{COIN, ELSEWHERE, Groat, on_groatd, two_wallets};

/// The keys of an answer, in order; `[...]` are those of a list's entries, `-` is an empty list.
pub fn shape(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<String> = map.iter().map(|(key, value)| format!("{key}{}", shape(value))).collect();
            keys.sort();
            format!("{{{}}}", keys.join(" "))
        }
        Value::Array(list) => match list.first() {
            Some(Value::Object(_)) => format!("[{}]", shape(&list[0])),
            Some(_) => "[]".into(),
            None => "-".into(),
        },
        _ => String::new(),
    }
}

/// Runs a command and compares the keys of its answer.
fn check(groat: &Groat, wallet: &str, arguments: &[&str], expected: &str) -> Value {
    let answer = groat.json(wallet, arguments);
    let keys = shape(&answer);
    assert_eq!(keys, expected, "keys of `groat {}` (left: got)\n{answer:#}\n{}", arguments.join(" "), repeat());
    answer
}

const SENT: &str = "announced_to change[{address amount_sat}] change_sat fee_rate_sat_vb fee_sat lock_time \
                    paid[{address amount_sat}] paid_sat relayed";
const PSBT: &str = "{psbt txid}";

#[test]
fn every_command_about_a_wallet_has_its_keys() {
    on_groatd(|node| {
        let groat = two_wallets(node);
        let made = "{address birthday_height chain fingerprint name type";
        check(&groat, "new", &["create", "new"], &format!("{made} words[]}}"));
        let words = check(&groat, "new", &["backup", "words"], "{bip39_passphrase words[]}");
        let words: Vec<&str> = words["words"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
        let words = groat.file("words", &words.join(" "));
        check(&groat, "again", &["restore", "again", "--words-file", &words], &format!("{made}}}"));
        let said = check(&groat, "new", &["backup", "descriptors"], "{change_descriptor descriptor}");
        let copy = groat.folder.path().join("copy").display().to_string();
        check(&groat, "new", &["backup", "file", &copy], "{folder}");
        let watched = said["descriptor"].as_str().unwrap();
        let import = ["import", "watch", watched];
        check(&groat, "watch", &import, "{address birthday_height chain name watch_only}");
        check(&groat, "new", &["list"], "{wallets[{name watch_only}]}");
        check(
            &groat,
            "new",
            &["info"],
            "{bip39_passphrase birthday_height chain change_descriptor descriptor folder genesis name synced_height \
             transactions type watch_only}",
        );
        let password = groat.file("other", "other\n");
        check(&groat, "again", &["password", "--new-password-file", &password], "{name}");
        check(&groat, "again", &["delete", "again"], "{deleted name}");
    });
}

#[test]
fn every_command_about_money_has_its_keys() {
    on_groatd(|node| {
        let groat = two_wallets(node);
        let asked = check(&groat, "poor", &["receive"], "{address amount_sat index label uri}");
        let to = asked["address"].as_str().unwrap();
        check(&groat, "poor", &["addresses"], "{addresses[{address index label received_sat used}]}");
        check(&groat, "poor", &["history"], "{transactions-}");
        check(&groat, "rich", &["balance"], "{confirmed_sat immature_sat pending_sat tip_height}");
        check(&groat, "rich", &["sync"], "{tip_height transactions}");
        let coins = check(
            &groat,
            "rich",
            &["coins"],
            "{coins[{address amount_sat change confirmations immature label locked outpoint}]}",
        );
        assert_eq!(coins["coins"][0]["amount_sat"], 50 * COIN);

        let dry = SENT.replace("announced_to ", "").replace("fee_sat", "dry_run fee_sat").replace(" relayed", "");
        let dry =
            dry.replace("change_sat fee_rate_sat_vb dry_run fee_sat", "change_sat dry_run fee_rate_sat_vb fee_sat");
        check(&groat, "rich", &["send", to, "1btc", "--dry-run"], &format!("{{{dry} replaceable vsize}}"));
        let sent = check(
            &groat,
            "rich",
            &["send", to, "1btc", "--feerate", "2"],
            &format!("{{{SENT} replaceable txid vsize}}"),
        );
        let raised = check(
            &groat,
            "rich",
            &["bump", sent["txid"].as_str().unwrap(), "--feerate", "5"],
            &format!(
                "{{{} method paid{}",
                SENT.replace(" paid[{address amount_sat}] paid_sat relayed", ""),
                "[{address amount_sat}] paid_sat relayed replaceable replaces txid vsize}"
            ),
        );
        check(
            &groat,
            "rich",
            &["history"],
            "{transactions[{confirmations fee_rate_sat_vb fee_sat height label net_sat received_sat replaceable sent_sat \
             time txid}]}",
        );
        let back = check(
            &groat,
            "rich",
            &["cancel", raised["txid"].as_str().unwrap()],
            "{announced_to change[{address amount_sat}] change_sat fee_rate_sat_vb fee_sat lock_time method paid- paid_sat \
             relayed replaceable replaces txid vsize}",
        );
        check(&groat, "rich", &["label", back["txid"].as_str().unwrap(), "no"], "{label ref type}");
        check(&groat, "rich", &["label"], "{labels[{label ref type}]}");
        let file = groat.file("labels", &groat.run("rich", &["label", "--export"]).stdout);
        check(&groat, "poor", &["label", "--import", &file], "{imported}");
        let signed = check(&groat, "poor", &["sign-message", to, "mine"], "{address message signature}");
        let signature = signed["signature"].as_str().unwrap();
        check(&groat, "poor", &["verify-message", to, "mine", signature], "{valid}");
    });
}

#[test]
fn every_command_about_psbts_and_the_node_has_its_keys() {
    on_groatd(|node| {
        let groat = two_wallets(node);
        let blank = check(&groat, "rich", &["psbt", "create", ELSEWHERE, "1btc"], PSBT);
        let blank = blank["psbt"].as_str().unwrap();
        let coin = "address amount_sat";
        let shown =
            format!("{{complete fee_sat inputs[{{{coin} outpoint owner}}] outputs[{{{coin} owner}}] signatures txid}}");
        check(&groat, "rich", &["psbt", "show", blank], &shown);
        let signed = check(&groat, "rich", &["psbt", "sign", blank], PSBT);
        let signed = signed["psbt"].as_str().unwrap();
        let both = check(&groat, "rich", &["psbt", "combine", blank, signed], PSBT);
        check(&groat, "rich", &["psbt", "finalize", both["psbt"].as_str().unwrap()], "{hex psbt txid}");
        let sent = format!("{{{SENT} replaceable txid vsize}}");
        check(&groat, "rich", &["psbt", "broadcast", signed], &sent);

        check(&groat, "rich", &["peers"], "{peers-}");
        check(&groat, "rich", &["rpc", "getblockcount"], "");
        let status = groat.json("rich", &["status"]);
        for key in ["tip_height", "syncing", "peers", "mempool_transactions", "advice"] {
            assert!(!status[key].is_null(), "expected: {key} in\n{status:#}");
        }
    });
}
