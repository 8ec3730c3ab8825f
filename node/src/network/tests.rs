//! Options as people write them, and what becomes of them.

use super::*;

/// The plan for these options, on the main network unless they name another one.
fn planned(options: &[&str]) -> anyhow::Result<Plan> {
    let words = ["groatd", "--noconf"].iter().chain(options).map(Into::into);
    let config = Config::read(words, |_| None).expect("options that are known").config;
    let chain = options.iter().find_map(|option| option.strip_prefix("--chain=")).unwrap_or("main");
    plan(&config, &Params::by_name(chain).expect("a known network"), Path::new("/folder"))
}

fn plan_of(options: &[&str]) -> Plan {
    planned(options).unwrap_or_else(|error| panic!("{options:?}: {error}"))
}

#[test]
fn what_makes_no_sense_is_refused_in_cores_words() {
    for (options, error) in [
        (&["--listen=0", "--bind=1.2.3.4"][..], "Cannot set -bind or -whitebind together with -listen=0"),
        (&["--listen=0", "--whitebind=1.2.3.4:1"], "Cannot set -bind or -whitebind together with -listen=0"),
        (&["--listen=0", "--listenonion=1"], "Cannot set -listen=0 together with -listenonion=1"),
        (&["--bind=1.2.3.4:0"], "Invalid port specified in -bind: '1.2.3.4:0'"),
        (&["--bind=1.2.3.4:70000=onion"], "Invalid port specified in -bind: '1.2.3.4:70000'"),
        (&["--whitebind=noban@1.2.3.4:x"], "Invalid port specified in -whitebind: '1.2.3.4:x'"),
        (&["--port=0"], "Invalid port specified in -port: '0'"),
        (&["--bind=nowhere"], "Cannot resolve -bind address: 'nowhere'"),
        (&["--bind=1.2.3.4=tor"], "Cannot resolve -bind address: '1.2.3.4=tor'"),
        (&["--whitebind=nowhere"], "Cannot resolve -whitebind address: 'nowhere'"),
        (&["--whitebind=noban@1.2.3.4"], "Need to specify a port with -whitebind: '1.2.3.4'"),
        (&["--whitebind=oopsie@1.2.3.4:1"], "Invalid P2P permission: 'oopsie'"),
        (
            &["--bind=1.2.3.4:1", "--bind=1.2.3.4:1=onion"],
            "Duplicate binding configuration for address 1.2.3.4:1. Please check your -bind, -bind=...=onion and -whitebind settings.",
        ),
        (&["--whitelist=in@1.2.3.4"], "Only direction was set, no permissions: 'in@1.2.3.4'"),
        (&["--whitelist"], "Invalid netmask specified in -whitelist: ''"),
        (&["--proxy=1.2.3.4:0"], "Invalid port specified in -proxy: '1.2.3.4:0'"),
        (&["--proxy=1.2.3.4:1="], "Invalid -proxy address or hostname, ends with '=': '1.2.3.4:1='"),
        (&["--proxy=1.2.3.4:1=NET"], "Unrecognized network in -proxy='1.2.3.4:1=NET': 'net'"),
        (&["--proxy=nowhere.invalid"], "Invalid -proxy address or hostname: 'nowhere.invalid'"),
        (&["--onion=nowhere.invalid"], "Invalid -onion address or hostname: 'nowhere.invalid'"),
        (&["--onlynet=moon"], "Unknown network specified in -onlynet: 'moon'"),
        (
            &["--onlynet=onion", "--onion=0"],
            "Outbound connections restricted to Tor (-onlynet=onion) but the proxy for reaching the Tor network is explicitly forbidden: -onion=0",
        ),
        (
            &["--onlynet=onion", "--listenonion=0"],
            "Outbound connections restricted to Tor (-onlynet=onion) but the proxy for reaching the Tor network is not provided: none of -proxy, -onion or -listenonion is given",
        ),
        (
            &["--onlynet=onion", "--onion=127.0.0.1", "--dnsseed=1"],
            "Incompatible options: -dnsseed=1 was explicitly specified, but -onlynet forbids connections to IPv4/IPv6",
        ),
        (&["--forcednsseed", "--dnsseed=0"], "Cannot set -forcednsseed to true when setting -dnsseed to false."),
        (&["--privatebroadcast=1"], "-privatebroadcast is not supported: own transactions are announced to all peers"),
        (&["--externalip=nowhere"], "Cannot resolve -externalip address: 'nowhere'"),
    ] {
        let found = planned(options).map(drop).map_err(|error| error.to_string());
        assert_eq!(found, Err(error.to_owned()), "{options:?}");
    }
}

#[test]
fn a_node_listens_unless_it_names_its_peers_or_hides() {
    for (options, listens) in [
        (&[][..], true),
        (&["--connect=0"], false),
        (&["--maxconnections=0"], false),
        (&["--proxy=127.0.0.1:9050"], false),
        (&["--proxy=127.0.0.1:9050", "--proxy=0"], true),
        (&["--connect=0", "--listen=1"], true),
        (&["--connect=0", "--bind=127.0.0.1"], true),
        (&["--listen=0"], false),
    ] {
        let plan = plan_of(options);
        assert_eq!((plan.dialling.listen, plan.binds.is_empty()), (listens, !listens), "{options:?}");
        assert!(listens || (plan.tor.is_none() && plan.mapped.is_none()), "{options:?}: nobody may come in");
    }
}

#[test]
fn binds_have_their_ports_doors_and_permissions() {
    let shown = |options: &[&str]| -> Vec<String> {
        let bind = |bind: &Bind| {
            let names = bind.door.permissions.names().join(",");
            format!("{}{}{}", bind.addr, if bind.door.onion { " onion " } else { " " }, names).trim().to_owned()
        };
        plan_of(options).binds.iter().map(bind).collect()
    };
    assert_eq!(shown(&[]), ["[::]:8333", "0.0.0.0:8333", "127.0.0.1:8334 onion"]);
    assert_eq!(shown(&["--chain=regtest"]), ["127.0.0.1:18444"]);
    assert_eq!(shown(&["--port=5", "--bind=1.2.3.4", "--bind=[::1]:7"]), ["1.2.3.4:5", "[::1]:7"]);
    assert_eq!(shown(&["--bind=127.0.0.1=onion"]), ["127.0.0.1:8334 onion"]);
    let bound = ["--whitebind=noban@127.0.0.1:1", "--whitebind=127.0.0.1:2"];
    assert_eq!(shown(&bound), ["127.0.0.1:1 noban,download", "127.0.0.1:2 noban,relay,mempool,download"]);
    let implicit = ["--whitebind=127.0.0.1:2", "--whitelistrelay=0", "--whitelistforcerelay=1"];
    assert_eq!(shown(&implicit), ["127.0.0.1:2 noban,forcerelay,relay,mempool,download"]);
}

#[test]
fn proxies_are_for_their_networks_and_decide_what_can_be_reached() {
    let proxy = |port| Some(Proxy { addr: SocketAddr::from(([127, 0, 0, 1], port)), isolate: true });
    let all = plan_of(&["--proxy=127.0.0.1"]).proxies;
    assert_eq!(all, Proxies::all(proxy(DEFAULT_TOR_SOCKS_PORT).expect("it is one")));
    let mixed = plan_of(&["--proxy=127.0.0.1:1", "--proxy=127.0.0.1:2=onion", "--proxy=0=ipv4"]).proxies;
    assert_eq!((mixed.ipv4, mixed.ipv6, mixed.onion, mixed.names), (None, proxy(1), proxy(2), None));
    assert!(!mixed.no_lookups && plan_of(&["--dns=0", "--proxy=0"]).proxies.no_lookups, "-dns=0 outlives -proxy");
    let onion = plan_of(&["--proxy=127.0.0.1:1", "--onion=127.0.0.1:3", "--proxyrandomize=0"]).proxies;
    assert_eq!(onion.onion.map(|proxy| (proxy.addr.port(), proxy.isolate)), Some((3, false)));
    assert_eq!(plan_of(&["--proxy=127.0.0.1:1", "--onion=0"]).proxies.onion, None);

    let reached = |options: &[&str]| -> Vec<&str> {
        plan_of(options).dialling.reachable.iter().map(|network| network.name()).collect()
    };
    assert_eq!(reached(&[]), ["ipv4", "ipv6"]);
    assert_eq!(reached(&["--onion=127.0.0.1"]), ["ipv4", "ipv6", "onion"]);
    assert_eq!(reached(&["--proxy=127.0.0.1", "--onlynet=Onion"]), ["onion"]);
    assert_eq!(reached(&["--cjdnsreachable", "--onlynet=cjdns", "--onlynet=ipv4"]), ["ipv4", "cjdns"]);
}

#[test]
fn seeds_are_asked_only_where_they_help() {
    for (options, asked, forced) in [
        (&[][..], true, false),
        (&["--dnsseed=0"], false, false),
        (&["--connect=1.2.3.4"], false, false),
        (&["--connect=1.2.3.4", "--dnsseed=1"], true, false),
        (&["--connect=1.2.3.4", "--forcednsseed=1"], true, true),
        (&["--proxy=127.0.0.1", "--onlynet=onion"], false, false),
        (&["--chain=regtest"], false, false),
    ] {
        let dialling = plan_of(options).dialling;
        assert_eq!((!dialling.dns_seeds.is_empty(), dialling.force_dns_seeds), (asked, forced), "{options:?}");
    }
    let dialling = plan_of(&["--connect=0", "--maxconnections=20", "--externalip=1.2.3.4", "--seednode=x"]).dialling;
    assert!(!dialling.automatic && !dialling.discover, "peers and addresses are named");
    assert_eq!((dialling.slots.total, dialling.seed_nodes), (20, vec!["x".to_owned()]));
    assert_eq!(dialling.external.iter().map(ToString::to_string).collect::<Vec<_>>(), ["1.2.3.4:8333"]);
}

#[test]
fn the_onion_service_hands_links_in_where_they_are_expected() {
    let tor = |options: &[&str]| plan_of(options).tor.expect("it listens");
    let plain = tor(&[]);
    assert_eq!((plain.target.to_string().as_str(), plain.port, plain.control.port()), ("127.0.0.1:8334", 8333, 9051));
    assert!(plain.wants_proxy && plain.may_dial);
    assert_eq!(plain.key_file, Path::new("/folder/onion_v3_private_key"));
    assert_eq!(tor(&["--bind=1.2.3.4:5", "--bind=127.0.0.1:6=onion"]).target.to_string(), "127.0.0.1:6");
    // Everywhere is no place to hand a link in at.
    assert_eq!(tor(&["--bind=0.0.0.0:5"]).target.to_string(), "127.0.0.1:5");
    let bound = tor(&["--onion=127.0.0.1", "--onlynet=ipv4", "--torcontrol=127.0.0.1:7", "--torpassword=x"]);
    assert!(!bound.wants_proxy && !bound.may_dial);
    assert_eq!((bound.control.port(), bound.password.as_deref()), (7, Some("x")));
    assert!(plan_of(&["--listenonion=0"]).tor.is_none());
}

#[test]
fn a_port_is_mapped_only_for_those_beyond_this_machine() {
    for (options, mapped) in [
        (&[][..], Some(8333)),
        (&["--port=5"], Some(5)),
        (&["--natpmp=0"], None),
        (&["--bind=127.0.0.1"], None),
        (&["--chain=regtest"], None),
        (&["--proxy=127.0.0.1", "--listen=1"], None),
        (&["--proxy=127.0.0.1", "--listen=1", "--natpmp=1"], Some(8333)),
    ] {
        assert_eq!(plan_of(options).mapped, mapped, "{options:?}");
    }
}

#[test]
fn links_leave_room_for_other_files() {
    let many = links_within_file_limit(usize::MAX);
    assert_eq!(links_within_file_limit(10).min(many), 10.min(many));
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    assert_eq!(limit.current, limit.maximum, "the limit was not raised");
    if let Some(limit) = limit.current {
        assert_eq!(many as u64, limit.saturating_sub(RESERVED_FILES));
    }
}
