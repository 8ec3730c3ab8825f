//! What a flood of addresses can reach, and who keeps a place.

use super::*;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

const NOW: u32 = 1_700_000_000;

fn rng() -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(7)
}

fn v4(a: u8, b: u8, c: u8, d: u8) -> AddrEntry {
    AddrEntry { time: NOW, services: 9, addr: NetAddr { host: Host::V4([a, b, c, d]), port: 8333 } }
}

fn ip() -> BTreeSet<Network> {
    BTreeSet::from([Network::Ipv4])
}

/// Every index agrees with every other.
fn check(book: &Book) {
    let mut places: BTreeMap<u32, Vec<u16>> = BTreeMap::new();
    for ((bucket, place), id) in book.new.iter() {
        let entry = book.entry(id);
        assert_eq!(book.place(b"pn", bucket, &entry.addr), (bucket, place), "{}", entry.addr);
        places.entry(id).or_default().push(bucket);
    }
    let mut counts: BTreeMap<Network, (usize, usize)> = BTreeMap::new();
    for (at, id) in book.tried.iter() {
        assert_eq!(book.tried_place(&book.entry(id).addr), at);
        assert!(book.entry(id).tried);
        counts.entry(book.entry(id).addr.host.network()).or_default().1 += 1;
    }
    for (id, entry) in book.entries.iter().enumerate() {
        let Some(entry) = entry else { continue };
        let mut known = entry.buckets[..usize::from(entry.places)].to_vec();
        known.sort_unstable();
        assert_eq!(known, places.remove(&(id as u32)).unwrap_or_default(), "{}", entry.addr);
        assert!(entry.tried == known.is_empty(), "{} is in one table", entry.addr);
        assert_eq!(book.find(&entry.addr), Some(id as u32));
        counts.entry(entry.addr.host.network()).or_default().0 += usize::from(!entry.tried);
    }
    assert!(places.is_empty(), "places of entries that are gone: {places:?}");
    counts.iter().for_each(|(network, count)| assert_eq!(book.count(*network), *count, "{network:?}"));
    assert_eq!(book.len(), book.entries.len() - book.free.len());
}

#[test]
fn one_source_group_reaches_sixty_four_buckets() {
    let (mut rng, mut book) = (rng(), Book::with_key((1, 2)));
    for n in 0..60_000u32 {
        let [_, a, b, c] = n.to_be_bytes();
        let told = v4(11 + (n % 200) as u8, b, c, a + 1);
        book.add(&told, Host::V4([99, 1, (n % 250) as u8, 1]), 0, NOW, &mut rng);
    }
    assert!(book.new.filled() <= 64, "{} buckets", book.new.filled());
    assert!(book.len() <= 64 * 64);
    check(&book);
}

#[test]
fn addresses_of_one_group_reach_eight_tried_buckets() {
    let (mut rng, mut book) = (rng(), Book::with_key((1, 2)));
    for n in 0..5000u32 {
        let [_, _, c, d] = n.to_be_bytes();
        let told = v4(50, 60, c, d);
        book.add(&told, Host::V4([(n % 200) as u8 + 20, (n / 200) as u8 + 1, 1, 1]), 0, NOW, &mut rng);
        book.good(&told.addr, NOW);
    }
    assert!(book.tried.filled() <= 8, "{} buckets", book.tried.filled());
    assert!(book.tried_len() > 300, "{} tried", book.tried_len());
    check(&book);
}

#[test]
fn unroutable_addresses_are_not_kept() {
    let (mut rng, mut book) = (rng(), Book::with_key((1, 2)));
    for host in [[127, 0, 0, 1], [10, 1, 1, 1], [192, 168, 1, 1], [0, 0, 0, 0], [255, 255, 255, 255]] {
        let told = AddrEntry { addr: NetAddr { host: Host::V4(host), port: 1 }, ..v4(1, 1, 1, 1) };
        assert!(!book.add(&told, Host::V4([8, 8, 8, 8]), 0, NOW, &mut rng), "{host:?}");
    }
    assert!(book.is_empty());
}

/// Two addresses that want the same place in tried.
fn rivals(book: &Book) -> (AddrEntry, AddrEntry) {
    let mut seen = BTreeMap::new();
    for n in 0..=u16::MAX {
        let [c, d] = n.to_be_bytes();
        let told = v4(50, 60, c, d);
        if let Some(other) = seen.insert(book.tried_place(&told.addr), told) {
            return (other, told);
        }
    }
    panic!("512 places and 65536 addresses");
}

/// Deciding one collision puts the old holder back among the new ones, where it may take the place of another address
/// whose collision is decided in the same go.
#[test]
fn an_address_that_loses_its_place_while_collisions_are_decided_is_passed_over() {
    let (source, told) = (Host::V4([8, 8, 8, 8]), |n: u32| {
        let [a, b, c, d] = n.to_be_bytes();
        v4(50 + a, 60 + b, c, d)
    });
    let mut book = Book::with_key((1, 2));
    let (old, first) = rivals(&book);
    let back = book.new_place(&old.addr, &source);
    // Of one group, and so in the same bucket of the new table: some of them in the old holder's place there.
    let displaced = (0..1 << 17).map(told).find(|other| {
        let free = other.addr != old.addr && other.addr != first.addr;
        free && book.new_place(&other.addr, &source) == back
    });
    let displaced = displaced.expect("64 places and 65536 addresses");
    let holder = (0..1 << 17).map(told).find(|other| {
        let place = book.tried_place(&other.addr);
        let free = ![old.addr, first.addr, displaced.addr].contains(&other.addr);
        free && place == book.tried_place(&displaced.addr)
    });
    let holder = holder.expect("512 places and 65536 addresses");
    // Numbers go up: the one that is displaced is decided last.
    for (told, tried) in [(&old, true), (&first, false), (&holder, true), (&displaced, false)] {
        assert!(book.add(told, source, 0, NOW, &mut rng()), "{}", told.addr);
        assert_eq!(book.good(&told.addr, NOW), tried, "{}", told.addr);
    }
    assert_eq!(book.collisions.len(), 2, "both wait");
    book.resolve_collisions(NOW + 10 * HOUR);
    assert!(book.find(&displaced.addr).is_none(), "the old holder has its place");
    assert!(book.collisions.is_empty());
    check(&book);
}

#[test]
fn a_tried_address_is_tested_before_another_takes_its_place() {
    for (answers, at, kept) in [(true, NOW + 5 * HOUR, true), (false, NOW + 5 * HOUR, false)] {
        let (mut rng, mut book) = (rng(), Book::with_key((1, 2)));
        let (old, new) = rivals(&book);
        let source = Host::V4([8, 8, 8, 8]);
        for told in [&old, &new] {
            assert!(book.add(told, source, 0, NOW, &mut rng));
        }
        book.good(&old.addr, NOW);
        book.good(&new.addr, at);
        assert_eq!(book.tried_len(), 1, "the new one waits");
        let (test, _) = book.select_collision(&mut rng).expect("a collision waits");
        assert_eq!(test.addr, old.addr);
        book.attempted(&old.addr, true, at + 1);
        if answers {
            book.good(&old.addr, at + 2);
        }
        book.resolve_collisions(at + 2);
        book.resolve_collisions(at + 2 * MINUTE);
        let holder = book.entries.iter().flatten().find(|entry| entry.tried).expect("one is tried");
        assert_eq!(holder.addr == old.addr, kept, "the old one answers: {answers}");
        assert_eq!(book.collisions.len(), 0);
        assert_eq!(book.len(), 2, "the other is not forgotten");
        check(&book);
    }
}

#[test]
fn useless_addresses_lose_their_place_and_are_not_given_away() {
    let entry = |time: u32, attempts: u16, last_success: u32| Entry {
        addr: v4(1, 2, 3, 4).addr,
        services: 0,
        time,
        source: Host::V4([1; 4]),
        last_try: NOW - HOUR,
        last_counted: 0,
        last_success,
        attempts,
        tried: false,
        places: 1,
        buckets: [0; 8],
    };
    for (case, terrible) in [
        (entry(NOW, 0, 0), false),
        (entry(NOW + 11 * MINUTE, 0, 0), true),
        (entry(NOW - 31 * DAY, 0, NOW), true),
        (entry(NOW - 29 * DAY, 0, 0), false),
        (entry(NOW, 3, 0), true),
        (entry(NOW, 9, NOW - 8 * DAY), false),
        (entry(NOW, 10, NOW - 8 * DAY), true),
        (entry(NOW, 10, NOW - 6 * DAY), false),
        (Entry { last_try: NOW - 30, ..entry(NOW, 10, 0) }, false),
    ] {
        assert_eq!(case.is_terrible(NOW), terrible, "{case:?}");
    }
}

#[test]
fn failures_count_only_while_others_answer() {
    let (mut rng, mut book) = (rng(), Book::with_key((1, 2)));
    let told = v4(50, 60, 1, 1);
    book.add(&told, Host::V4([8, 8, 8, 8]), 0, NOW, &mut rng);
    let attempts = |book: &Book| book.entry(book.find(&told.addr).expect("it is kept")).attempts;
    for n in 0..5 {
        book.attempted(&told.addr, true, NOW + n);
    }
    assert_eq!(attempts(&book), 1, "nobody else answered since");
    book.good(&v4(9, 9, 9, 9).addr, NOW + 100);
    book.attempted(&told.addr, true, NOW + 101);
    assert_eq!(attempts(&book), 2);
}

#[test]
fn drawing_reaches_new_and_tried_and_avoids_failures() {
    let (mut rng, mut book) = (rng(), Book::with_key((1, 2)));
    assert!(book.select(false, &ip(), NOW, &mut rng).is_none());
    for n in 0..40 {
        let told = v4(20 + n, 1, 1, 1);
        book.add(&told, Host::V4([8, n, 8, 8]), 0, NOW, &mut rng);
        if n < 10 {
            book.good(&told.addr, NOW - DAY);
        }
    }
    let draws: Vec<AddrEntry> =
        (0..2000).map(|_| book.select(false, &ip(), NOW, &mut rng).expect("there are some").0).collect();
    let tried = draws.iter().filter(|told| matches!(told.addr.host, Host::V4([20..30, ..]))).count();
    assert!((850..1150).contains(&tried), "{tried} of 2000 draws are tried ones");
    let distinct: BTreeSet<NetAddr> = draws.iter().map(|told| told.addr).collect();
    assert_eq!(distinct.len(), 40);
    assert!(
        book.select(true, &ip(), NOW, &mut rng)
            .is_some_and(|(told, _)| !matches!(told.addr.host, Host::V4([20..30, ..])))
    );
    assert_eq!(book.sample(1000, 23, None, NOW, &mut rng).len(), 9);
    assert_eq!(book.sample(5, 100, Some(Network::Ipv4), NOW, &mut rng).len(), 5);
    assert!(book.sample(5, 100, Some(Network::Onion), NOW, &mut rng).is_empty());
}

#[test]
fn a_book_comes_back_from_its_bytes() {
    let (mut rng, mut book) = (rng(), Book::with_key((3, 4)));
    for n in 0..2000u32 {
        let [_, b, c, d] = n.to_be_bytes();
        let told = v4(20 + (n % 100) as u8, b + 1, c, d);
        book.add(&told, Host::V4([30 + (n % 50) as u8, 1, 1, 1]), 0, NOW, &mut rng);
        if n % 5 == 0 {
            book.good(&told.addr, NOW);
        }
    }
    check(&book);
    let again = Book::from_bytes(&book.to_bytes(), NOW).expect("its own bytes");
    check(&again);
    assert_eq!((again.len(), again.tried_len()), (book.len(), book.tried_len()));
    let tried = |book: &Book| book.shelves().filter(|shelved| shelved.tried).collect::<Vec<_>>();
    assert_eq!(tried(&again), tried(&book));
    assert!(matches!(Book::from_bytes(&[9, 1, 1], NOW), Err(BookError::Format(9))));
    assert!(matches!(Book::from_bytes(&[1, 1, 1], NOW), Err(BookError::Damaged(_))));
}

#[test]
fn draws_keep_to_the_networks_that_are_asked_for() {
    let (mut rng, mut book) = (rng(), Book::with_key((1, 2)));
    for n in 0..200 {
        book.add(&v4(20 + n / 4, n, 1, 1), Host::V4([8, n, 8, 8]), 0, NOW, &mut rng);
    }
    let key = Host::TorV3([9; 32]);
    let onion = AddrEntry { addr: NetAddr { host: key, port: 8333 }, ..v4(1, 1, 1, 1) };
    let tor = BTreeSet::from([Network::Onion]);
    assert!(book.select(false, &tor, NOW, &mut rng).is_none());
    book.add(&onion, Host::V4([8, 8, 8, 8]), 0, NOW, &mut rng);
    for _ in 0..20 {
        assert_eq!(book.select(false, &tor, NOW, &mut rng).map(|drawn| drawn.0.addr.host), Some(key));
        let drawn = book.select(false, &ip(), NOW, &mut rng).expect("there are some");
        assert_ne!(drawn.0.addr.host, key);
    }
    assert_eq!((book.count(Network::Onion), book.count(Network::Ipv4).0), ((1, 0), book.len() - 1));
}

/// Run it with `cargo test --release -p groat-net addrman -- --nocapture` to see the times.
#[test]
fn a_call_costs_little_in_a_full_book() {
    fn use_up<T>(result: &T) {
        std::hint::black_box(result);
    }
    let (mut rng, mut book) = (rng(), Book::with_key((1, 2)));
    let entry = |n: u32| {
        let [a, b, c, d] = n.wrapping_mul(2_654_435_761).to_be_bytes();
        v4(1 + a % 120 + if a % 120 >= 9 { 2 } else { 0 }, b, c, d)
    };
    let source = |n: u32| Host::V4([30 + (n % 90) as u8, (n / 90) as u8, 1, 1]);
    let timed = |name: &str, calls: u32, mut call: Box<dyn FnMut(u32) + '_>| {
        let start = crate::driver::now();
        (0..calls).for_each(&mut call);
        let nanos = crate::driver::now().since(start).as_nanos() / u128::from(calls);
        println!("{name}: {nanos} ns a call");
        assert!(nanos < 20_000, "{name} takes {nanos} ns a call");
    };
    for n in 0..400_000 {
        book.add(&entry(n), source(n), 0, NOW, &mut rng);
        if n % 8 == 0 {
            book.good(&entry(n).addr, NOW);
        }
    }
    println!("{} addresses, {} of them tried", book.len(), book.tried_len());
    assert!(book.len() > 50_000, "{} addresses", book.len());
    let known: Vec<NetAddr> = book.shelves().map(|shelved| shelved.entry.addr).collect();
    let at = |n: u32| known[(n as usize * 7919) % known.len()];
    timed("select", 20_000, Box::new(|_| use_up(&book.select(false, &ip(), NOW, &mut rng))));
    timed("select new", 20_000, Box::new(|_| use_up(&book.select(true, &ip(), NOW, &mut rng))));
    timed("attempted", 20_000, Box::new(|n| book.attempted(&at(n), true, NOW)));
    timed("good", 20_000, Box::new(|n| use_up(&book.good(&at(n), NOW + n))));
    timed("add", 20_000, Box::new(|n| use_up(&book.add(&entry(n + 500_000), source(n), 0, NOW, &mut rng))));
    check(&book);
}

#[test]
fn a_damaged_book_is_refused_in_one_sentence() {
    let bytes = Book::with_key((1, 2)).to_bytes();
    for (bytes, sentence) in [
        (&bytes[..bytes.len() - 1], "the peer book is damaged (io error: unexpected end of file); remove the file"),
        (&[][..], "the peer book is damaged (io error: unexpected end of file); remove the file"),
        (&[9; 50][..], "the peer book has format 9, this program reads 1; remove the file"),
    ] {
        let error = Book::from_bytes(bytes, NOW).expect_err("it is damaged");
        assert!(error.to_string().starts_with(sentence), "{error}");
        assert!(std::error::Error::source(&error).is_none(), "who shows causes would say it twice");
    }
}
