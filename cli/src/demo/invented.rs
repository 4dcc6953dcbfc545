//! Made-up login messages, the same for the same seed. No value is anybody's: addresses are of the ranges set aside for
//! documentation, and device ids begin with `000`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fastrand::Rng;
use serde_json::{Value, json};
use uuid::Builder;

use super::plan::{Origin, Plan, Planned, Spelled};

/// Everybody knows it, so that the demo's pseudonyms are the same each time. It masks made-up values only.
const MASKING_KEY: &str = "everybody-knows-this-key-use-it-for-nothing";
/// Visitors come back: so many messages are there for each device, on average.
const LOGINS_PER_DEVICE: usize = 5;
const DUPLICATES: usize = 5;

const DEVICE_TYPES: [Option<&str>; 5] = [Some("android"), Some("android"), Some("ios"), Some("ios"), None];
const LOCALES: [Option<&str>; 8] =
    [None, Some("DE"), Some("BR"), None, Some("ID"), Some("PL"), Some("en-GB"), Some("zh-Hant-TW")];
const VERSIONS: [Option<&str>; 7] =
    [Some("2.3.0"), Some("6.02"), Some("2.10.0"), Some("2.3.1"), Some("1.0"), Some("11.4.27"), None];

/// One way in which a message is bad.
type Spoil = fn(&mut Value);

/// The ways to be bad, but for one: a body that is no JSON.
const SPOILS: [Spoil; 7] = [
    |login| login["session"] = "a field that the contract does not know".into(),
    |login| drop(login.as_object_mut().map(|fields| fields.remove("ip"))),
    |login| login["device_id"] = json!(7),
    |login| login["app_version"] = "2.3.0-beta".into(),
    |login| login["ip"] = "192.0.2.256".into(),
    |login| login["locale"] = "x".repeat(33).into(),
    |login| login["user_id"] = "a\0b".into(),
];

/// A made-up somebody with one device.
struct Visitor {
    user_id: String,
    device_id: String,
    device_type: Option<&'static str>,
    locale: Option<&'static str>,
    app_version: Option<&'static str>,
    /// At home and elsewhere.
    addresses: [IpAddr; 2],
}

/// By address: the spellings, each with the ids of the messages that bear it.
type Spellings = BTreeMap<IpAddr, BTreeMap<String, Vec<String>>>;

/// `count` messages, a few of them bad, a few sent twice, and an answer that gets lost.
pub fn plan(count: usize, seed: u64) -> Plan {
    let mut rng = Rng::with_seed(seed);
    let visitors: Vec<_> = (0..count.div_ceil(LOGINS_PER_DEVICE)).map(|number| visitor(&mut rng, number)).collect();
    // The first rows of the table shall show a visitor who comes back, hence no bad ones there.
    let bad = rng.choose_multiple(5..count, SPOILS.len() + 1);
    let mut spellings = Spellings::new();
    let mut messages = Vec::with_capacity(count);
    for position in 0..count {
        let visitor = if position < 4 { &visitors[position % 3] } else { choose(&visitors, &mut rng) };
        let id = Builder::from_random_bytes(rng.u128(..).to_be_bytes()).into_uuid().to_string();
        let (address, ip) = address(visitor, &mut rng);
        let body = match bad.iter().position(|bad| *bad == position) {
            Some(way) => bad_body(login(visitor, &ip), way),
            None => {
                spellings.entry(address).or_default().entry(ip.clone()).or_default().push(id.clone());
                login(visitor, &ip).to_string()
            }
        };
        messages.push(Planned { id, body, place: position + 1 });
    }
    let order = order(count, &bad, &mut rng);
    let spelled = most_spelled(spellings);
    let masking_key = MASKING_KEY.to_owned();
    Plan { messages, order, origin: Origin::Invented, masking_key, lose_an_answer: true, spelled }
}

fn visitor(rng: &mut Rng, number: usize) -> Visitor {
    Visitor {
        user_id: Builder::from_random_bytes(rng.u128(..).to_be_bytes()).into_uuid().to_string(),
        device_id: format!("000-{:02}-{:04}", number / 10_000, number % 10_000),
        device_type: pick(&DEVICE_TYPES, rng),
        locale: pick(&LOCALES, rng),
        app_version: pick(&VERSIONS, rng),
        addresses: [documentation_address(rng), documentation_address(rng)],
    }
}

fn pick<T: Copy>(from: &[T], rng: &mut Rng) -> T {
    from[rng.usize(..from.len())]
}

/// Some come often, most seldom.
fn choose<'a>(visitors: &'a [Visitor], rng: &mut Rng) -> &'a Visitor {
    &visitors[rng.usize(..visitors.len()).min(rng.usize(..visitors.len()))]
}

/// Of RFC 5737 and RFC 3849.
fn documentation_address(rng: &mut Rng) -> IpAddr {
    let host = rng.u8(1..255);
    match rng.u8(..4) {
        0 => Ipv4Addr::new(192, 0, 2, host).into(),
        1 => Ipv4Addr::new(198, 51, 100, host).into(),
        2 => Ipv4Addr::new(203, 0, 113, host).into(),
        _ => Ipv6Addr::new(0x2001, 0xdb8, 0, rng.u16(..), 0, 0, 0, host.into()).into(),
    }
}

/// Mostly at home, and spelled as the client likes it.
fn address(visitor: &Visitor, rng: &mut Rng) -> (IpAddr, String) {
    let address = visitor.addresses[usize::from(rng.u8(..5) == 0)];
    let way = rng.u8(..6);
    let spelled = match (address, way) {
        (IpAddr::V4(v4), 0) => v4.to_ipv6_mapped().to_string(),
        (IpAddr::V4(v4), 1) => in_full(v4.to_ipv6_mapped()),
        (IpAddr::V6(v6), 0 | 1) => in_full(v6),
        (IpAddr::V6(v6), 2) => v6.to_string().to_uppercase(),
        (address, _) => address.to_string(),
    };
    (address, spelled)
}

fn in_full(address: Ipv6Addr) -> String {
    address.segments().map(|segment| format!("{segment:04X}")).join(":")
}

fn login(visitor: &Visitor, ip: &str) -> Value {
    json!({
        "user_id": visitor.user_id,
        "app_version": visitor.app_version,
        "device_type": visitor.device_type,
        "ip": ip,
        "locale": visitor.locale,
        "device_id": visitor.device_id,
    })
}

fn bad_body(mut login: Value, way: usize) -> String {
    let Some(spoil) = SPOILS.get(way) else {
        let mut torn = login.to_string();
        torn.pop();
        return torn;
    };
    spoil(&mut login);
    login.to_string()
}

/// In the order of making, with a few good ones once more: right behind themselves or much later.
fn order(count: usize, bad: &[usize], rng: &mut Rng) -> Vec<usize> {
    let mut good: Vec<_> = (0..count).filter(|position| !bad.contains(position)).collect();
    rng.shuffle(&mut good);
    good.truncate(DUPLICATES);
    let (soon, late) = good.split_at(DUPLICATES / 2);
    let once_or_twice = |position| std::iter::repeat_n(position, 1 + usize::from(soon.contains(&position)));
    (0..count).flat_map(once_or_twice).chain(late.iter().copied()).collect()
}

fn most_spelled(spellings: Spellings) -> Option<Spelled> {
    let spelled = spellings.into_values().max_by_key(BTreeMap::len)?;
    Some(Spelled { ways: spelled.len(), ids: spelled.into_values().flatten().collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_messages_and_another_one_others() {
        let bodies = |seed| plan(100, seed).messages.into_iter().map(|m| m.id + &m.body).collect::<Vec<_>>();
        assert_eq!(bodies(1), bodies(1));
        assert_ne!(bodies(1), bodies(2));
    }

    #[test]
    fn the_fewest_messages_hold_every_kind_of_bad_one_and_all_duplicates() {
        let plan = plan(20, 1);
        assert_eq!(plan.messages.len(), 20);
        assert_eq!(plan.duplicates().len(), DUPLICATES);
    }

    #[test]
    fn a_spelling_in_full_is_the_same_address() {
        let address: Ipv6Addr = "2001:db8::7f".parse().unwrap();
        assert_eq!(in_full(address), "2001:0DB8:0000:0000:0000:0000:0000:007F");
        assert_eq!(in_full(address).parse(), Ok(address));
    }
}
