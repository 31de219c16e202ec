//! The generated JavaScript against prost: golden vectors, and random and damaged messages through node.
//!
//! `MARCHLAND_WRITE_VECTORS=1 cargo test -p marchland-codegen` writes `clients/web/test/vectors.json` anew.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use marchland_codegen::{schema, workspace_root};
use marchland_proto::client::{ClientMessage, ServerMessage};
use prost::Message;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage, Value};

const VECTORS: &str = "clients/web/test/vectors.json";

/// Small numbers from a seed: which values occur must not change from run to run.
struct Seeded(u64);

impl Seeded {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 ^ (self.0 >> 33)) >> 7 | self.0 << 57
    }

    fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 20) % end
    }

    /// Any number of bits is as likely as any other, so that every length of varint occurs.
    fn bits(&mut self, most: u32) -> u64 {
        let bits = self.below(u64::from(most) + 1) as u32;
        if bits == 0 { 0 } else { self.next() >> (64 - bits) }
    }
}

fn scalar(kind: &Kind, random: &mut Seeded) -> Value {
    match kind {
        Kind::Double => Value::F64(random.bits(40) as f64 / 64.0 - 1000.0),
        Kind::Float => Value::F32(random.bits(20) as f32 / 64.0 - 1000.0),
        Kind::Int32 | Kind::Sfixed32 => Value::I32(random.bits(32) as u32 as i32),
        Kind::Sint32 => Value::I32(random.bits(31) as i32 * if random.below(2) == 0 { 1 } else { -1 }),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(random.bits(64) as i64),
        Kind::Uint32 | Kind::Fixed32 => Value::U32(random.bits(32) as u32),
        Kind::Uint64 | Kind::Fixed64 => Value::U64(random.bits(64)),
        Kind::Bool => Value::Bool(random.below(2) == 0),
        Kind::String => Value::String(["", "Ada", "Zoë", "山田太郎", "🙂", "a b"][random.below(6) as usize].to_owned()),
        Kind::Bytes => {
            let length = [0, 1, 3, 32, 127, 128, 300][random.below(7) as usize];
            Value::Bytes((0..length).map(|_| random.next() as u8).collect::<Vec<u8>>().into())
        }
        Kind::Enum(values) => Value::EnumNumber(values.default_value().number()),
        Kind::Message(message) => Value::Message(random_message(message, random)),
    }
}

fn random_message(descriptor: &MessageDescriptor, random: &mut Seeded) -> DynamicMessage {
    let mut message = DynamicMessage::new(descriptor.clone());
    for field in descriptor.fields().filter(|field| field.containing_oneof().is_none()) {
        if field.is_list() {
            let count = [0, 1, 3][random.below(3) as usize];
            let items = (0..count).map(|_| scalar(&field.kind(), random)).collect();
            message.set_field(&field, Value::List(items));
        } else if random.below(4) > 0 {
            message.set_field(&field, scalar(&field.kind(), random));
        }
    }
    for oneof in descriptor.oneofs() {
        let members: Vec<FieldDescriptor> = oneof.fields().collect();
        let chosen = random.below(members.len() as u64 + 1) as usize;
        if let Some(field) = members.get(chosen) {
            message.set_field(field, scalar(&field.kind(), random));
        }
    }
    message
}

/// As `codec.test.mjs` expects it: 64-bit numbers and bytes as strings, absent messages left out.
fn json(value: &Value, out: &mut String) {
    let text = |text: &str, out: &mut String| {
        let _ = write!(out, "\"{text}\"");
    };
    match value {
        Value::Bool(value) => out.push_str(&value.to_string()),
        Value::I32(value) => out.push_str(&value.to_string()),
        Value::U32(value) => out.push_str(&value.to_string()),
        Value::EnumNumber(value) => out.push_str(&value.to_string()),
        Value::F32(value) => out.push_str(&f64::from(*value).to_string()),
        Value::F64(value) => out.push_str(&value.to_string()),
        Value::I64(value) => text(&value.to_string(), out),
        Value::U64(value) => text(&value.to_string(), out),
        Value::String(value) => text(value, out),
        Value::Bytes(value) => text(&hex(value), out),
        Value::List(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                json(item, out);
            }
            out.push(']');
        }
        Value::Message(message) => message_json(message, out),
        Value::Map(_) => unreachable!("the generator refuses maps"),
    }
}

fn message_json(message: &DynamicMessage, out: &mut String) {
    out.push('{');
    let mut first = true;
    for field in message.descriptor().fields() {
        if field.supports_presence() && !message.has_field(&field) {
            continue;
        }
        if !first {
            out.push(',');
        }
        first = false;
        let _ = write!(out, "\"{}\":", field.name());
        json(&message.get_field(&field), out);
    }
    out.push('}');
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

/// `count` messages of every type, as `(namespace.Name, message)`.
fn samples(seed: u64, count: usize) -> Vec<(String, DynamicMessage)> {
    let mut random = Seeded(seed);
    let mut out = Vec::new();
    for namespace in schema::load(&workspace_root()).unwrap() {
        for message in &namespace.messages {
            for _ in 0..count {
                out.push((format!("{}.{}", namespace.name, message.name()), random_message(message, &mut random)));
            }
        }
    }
    out
}

/// What prost makes of a message of the client protocol: itself, written anew; `None` if it refuses.
fn prost_echo(name: &str, bytes: &[u8]) -> Option<Vec<u8>> {
    match name {
        "client.ClientMessage" => ClientMessage::decode(bytes).ok().map(|m| m.encode_to_vec()),
        "client.ServerMessage" => ServerMessage::decode(bytes).ok().map(|m| m.encode_to_vec()),
        other => panic!("{other} is not sent by itself"),
    }
}

/// Equal up to the bits of a NaN.
fn same(name: &str, one: &[u8], other: &[u8]) -> bool {
    match name {
        "client.ClientMessage" => format!("{:?}", ClientMessage::decode(one)) == format!("{:?}", ClientMessage::decode(other)),
        _ => format!("{:?}", ServerMessage::decode(one)) == format!("{:?}", ServerMessage::decode(other)),
    }
}

#[test]
fn reflection_and_prost_write_alike() {
    for (name, message) in samples(1, 40) {
        if ["client.ClientMessage", "client.ServerMessage"].contains(&name.as_str()) {
            let bytes = message.encode_to_vec();
            assert_eq!(prost_echo(&name, &bytes), Some(bytes), "{name}");
        }
    }
}

#[test]
fn golden_vectors_are_what_prost_writes() {
    let mut content = String::from("[\n");
    let vectors = samples(7, 4);
    for (i, (name, message)) in vectors.iter().enumerate() {
        let _ = write!(content, "{{\"type\":\"{name}\",\"hex\":\"{}\",\"value\":", hex(&message.encode_to_vec()));
        message_json(message, &mut content);
        content.push_str(if i + 1 == vectors.len() { "}\n" } else { "},\n" });
    }
    content.push_str("]\n");
    let path = workspace_root().join(VECTORS);
    if std::env::var_os("MARCHLAND_WRITE_VECTORS").is_some() {
        fs::write(&path, &content).unwrap();
    }
    let on_disk = fs::read_to_string(&path).unwrap_or_default();
    assert!(on_disk == content, "{VECTORS} is out of date: MARCHLAND_WRITE_VECTORS=1 cargo test -p marchland-codegen");
}

/// Runs node in `clients/web`, or says that it is not there: a missing tool is reported, never counted as passed in silence.
fn node(arguments: &[&str], input: &str) -> Option<String> {
    let mut command = Command::new("node");
    command.args(arguments).current_dir(workspace_root().join("clients/web"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        // Past the capture of the test harness, so that it is seen.
        let _ = writeln!(std::io::stderr(), "skipped: node is not installed, the JavaScript codec was not run");
        return None;
    };
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "node {arguments:?} failed:\n{text}\n{}", String::from_utf8_lossy(&output.stderr));
    Some(text)
}

#[test]
fn the_tests_of_the_page_pass() {
    node(
        &[
            "--test",
            "test/codec.test.mjs",
            "test/draw.test.mjs",
            "test/prediction.test.mjs",
            "test/session.test.mjs",
            "test/world.test.mjs",
        ],
        "",
    );
}

#[test]
fn javascript_reads_and_writes_like_prost() {
    let mut random = Seeded(99);
    let mut cases = Vec::new();
    for (name, message) in samples(11, 60) {
        let whole = message.encode_to_vec();
        if ["client.ClientMessage", "client.ServerMessage"].contains(&name.as_str()) {
            for _ in 0..30 {
                let mut damaged = whole.clone();
                match random.below(3) {
                    0 => damaged.truncate(random.below(whole.len() as u64 + 1) as usize),
                    1 => damaged.extend((0..random.below(12)).map(|_| random.next() as u8)),
                    _ if whole.is_empty() => {}
                    _ => {
                        for _ in 0..=random.below(3) {
                            let at = random.below(whole.len() as u64) as usize;
                            damaged[at] ^= 1 << random.below(8);
                        }
                    }
                }
                cases.push((name.clone(), damaged, true));
            }
        }
        cases.push((name, whole, false));
    }
    let mut input = String::new();
    for (name, bytes, _) in &cases {
        let _ = writeln!(input, "{name} {}", hex(bytes));
    }
    let Some(output) = node(&["test/echo.mjs"], &input) else { return };
    assert_eq!(output.lines().count(), cases.len());
    let mut refused = 0;
    for ((name, bytes, damaged), answer) in cases.iter().zip(output.lines()) {
        let written = match answer {
            "refused" => None,
            "empty" => Some(Vec::new()),
            text => Some(unhex(text)),
        };
        if !damaged {
            assert_eq!(written.as_deref(), Some(&bytes[..]), "{name} {}", hex(bytes));
            continue;
        }
        refused += usize::from(written.is_none());
        match (prost_echo(name, bytes), written) {
            (None, None) => {}
            (Some(expected), Some(found)) if same(name, &expected, &found) => {}
            (expected, found) => panic!("{name} {}: prost {expected:02x?}, JavaScript {found:02x?}", hex(bytes)),
        }
    }
    assert!(refused > cases.len() / 20, "only {refused} of {} cases were refused: the damage does too little", cases.len());
}
