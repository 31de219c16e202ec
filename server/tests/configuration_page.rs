//! `docs/configuration.md` tells the truth: every key of `node.toml` is on the page, no other is, and the defaults are the
//! real ones.

use std::collections::{BTreeMap, BTreeSet};

use marchland_server::config::{
    AdminConfig, DevelopmentConfig, EdgeTlsConfig, GroundConfig, MemberConfig, NodeConfig, RaftConfig, RealmAddress, RealmConfig,
    RulesConfig, StorageConfig,
};
use toml::Value;

const PAGE: &str = include_str!("../../docs/configuration.md");

/// What the column *default* says of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Default {
    /// The file must have it.
    Required,
    /// Its section is absent unless given.
    None,
    /// Taken when the file does not have it, as TOML.
    Value(String),
}

/// The rows of the page's tables: key and default.
fn page_keys() -> BTreeMap<String, Default> {
    let mut keys = BTreeMap::new();
    for line in PAGE.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.split(" | ").map(|cell| cell.trim_matches(['|', ' '])).collect();
        let [key, default, meaning] = cells[..] else { panic!("row with {} cells: {line}", cells.len()) };
        assert!(meaning.ends_with('.'), "no sentence: {line}");
        let default = match default {
            "required" => Default::Required,
            "none" => Default::None,
            value => Default::Value(value.trim_matches('`').to_owned()),
        };
        assert_eq!(keys.insert(key.trim_matches('`').to_owned(), default), None, "{key} is on the page twice");
    }
    keys
}

/// Every key of a value with what it holds: `edge.tls.key`, `members[].node`.
fn flatten(prefix: &str, value: &Value, keys: &mut BTreeMap<String, String>) {
    match value {
        Value::Table(table) => {
            for (name, value) in table {
                let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                flatten(&key, value, keys);
            }
        }
        Value::Array(array) if array.iter().any(Value::is_table) => {
            array.iter().for_each(|value| flatten(&format!("{prefix}[]"), value, keys));
        }
        leaf => {
            keys.insert(prefix.to_owned(), leaf.to_string());
        }
    }
}

fn keys_of(config: &NodeConfig) -> BTreeMap<String, String> {
    let mut keys = BTreeMap::new();
    flatten("", &Value::try_from(config).expect("a configuration is TOML"), &mut keys);
    keys
}

/// The example of the page: exactly the keys that are required.
fn smallest() -> &'static str {
    let example = PAGE.split("```toml\n").nth(1).expect("the page has an example");
    example.split("```").next().expect("the example ends")
}

/// A configuration with everything that it can have.
fn fullest() -> NodeConfig {
    let mut config: NodeConfig = toml::from_str(smallest()).expect("the example is a configuration");
    config.edge.tls = Some(EdgeTlsConfig { certificate: "c".into(), key: "k".into() });
    config.realm = Some(RealmConfig { nodes: vec![3], addresses: vec![RealmAddress { node: 3, grpc: "g".into() }] });
    config.admin = Some(AdminConfig { token_file: "t".into() });
    config.development = Some(DevelopmentConfig { token_key: "t".into() });
    config.members.push(MemberConfig { node: 2, grpc: "g".into(), ws: "w".into(), http: Some("h".into()) });
    config
}

#[test]
fn every_key_is_on_the_page_and_no_other() {
    let mut config = fullest();
    let mut keys: BTreeSet<String> = keys_of(&config).into_keys().collect();
    config.world.ground = GroundConfig::Open { side_m: 100.0 };
    keys.extend(keys_of(&config).into_keys());
    assert_eq!(page_keys().into_keys().collect::<BTreeSet<_>>(), keys);
}

#[test]
fn the_defaults_are_the_real_ones() {
    let config: NodeConfig = toml::from_str(smallest()).expect("the example is a configuration");
    assert_eq!(config.validate(), Ok(()));
    let mut given = BTreeMap::new();
    flatten("", &toml::from_str(smallest()).expect("the example is TOML"), &mut given);
    let taken = keys_of(&config);
    for (key, default) in page_keys() {
        let real = match (given.contains_key(&key), taken.get(&key)) {
            (true, _) => Default::Required,
            (false, Some(value)) => Default::Value(value.clone()),
            (false, None) => Default::None,
        };
        assert_eq!(default, real, "default of {key}");
    }
    // What a file leaves out is what the types say.
    assert_eq!(
        (config.raft, config.storage, config.rules),
        (RaftConfig::default(), StorageConfig::default(), RulesConfig::default())
    );
}

#[test]
fn what_the_page_calls_required_is_refused_when_it_is_absent() {
    let whole: toml::Table = toml::from_str(smallest()).expect("the example is TOML");
    for (key, _) in page_keys().into_iter().filter(|(_, default)| *default == Default::Required) {
        let mut cut = whole.clone();
        let (section, name) = key.split_once('.').unwrap_or(("", &key));
        let removed = match (section, section.strip_suffix("[]")) {
            ("", _) => cut.remove(name),
            (_, Some(array)) => cut[array][0].as_table_mut().expect("a table").remove(name),
            (table, None) => cut[table].as_table_mut().expect("a table").remove(name),
        };
        assert!(removed.is_some(), "{key} is not in the example");
        let error = toml::from_str::<NodeConfig>(&toml::to_string(&cut).expect("TOML")).expect_err(&key);
        assert!(error.to_string().contains(name), "{key}: {error}");
    }
}
