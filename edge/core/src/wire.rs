//! Writing protobuf by hand, byte for byte what prost would write.
//!
//! One frame per client and tick is the hottest thing that an edge does; building a tree of messages first would cost more
//! than filling the bytes. What always holds: default values are left out, lengths are minimal, so that the tests can compare
//! with prost for equality.

/// Appends a base-128 integer.
#[inline]
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends an unsigned field, unless it is 0. Field numbers here are below 16, so that a key is one byte.
#[inline]
pub(crate) fn put_uint(out: &mut Vec<u8>, field: u8, value: u64) {
    if value != 0 {
        out.push(field << 3);
        put_varint(out, value);
    }
}

/// Appends a `sint32` field, unless it is 0.
#[inline]
pub(crate) fn put_sint(out: &mut Vec<u8>, field: u8, value: i32) {
    put_uint(out, field, u64::from(((value << 1) ^ (value >> 31)) as u32));
}

/// Appends a `float` field, unless it is 0.
#[inline]
pub(crate) fn put_float(out: &mut Vec<u8>, field: u8, value: f32) {
    if value != 0.0 {
        out.push(field << 3 | 5);
        out.extend_from_slice(&value.to_le_bytes());
    }
}

/// Appends a `bytes` or `string` field, unless it is empty.
#[inline]
pub(crate) fn put_bytes(out: &mut Vec<u8>, field: u8, value: &[u8]) {
    if !value.is_empty() {
        put_length_delimited(out, field, value.len());
        out.extend_from_slice(value);
    }
}

/// Appends key and length of a field whose `len` bytes the caller appends next.
#[inline]
pub(crate) fn put_length_delimited(out: &mut Vec<u8>, field: u8, len: usize) {
    out.push(field << 3 | 2);
    put_varint(out, len as u64);
}

/// Appends a nested message that `body` writes. It is written in place; only one longer than 127 bytes is moved once.
#[inline]
pub(crate) fn put_message(out: &mut Vec<u8>, field: u8, body: impl FnOnce(&mut Vec<u8>)) {
    out.push(field << 3 | 2);
    let length_at = out.len();
    out.push(0);
    body(out);
    let len = out.len() - length_at - 1;
    if len < 0x80 {
        out[length_at] = len as u8;
        return;
    }
    let mut header = [0u8; 10];
    let (mut width, mut rest) = (0, len);
    while rest >= 0x80 {
        header[width] = rest as u8 | 0x80;
        rest >>= 7;
        width += 1;
    }
    header[width] = rest as u8;
    width += 1;
    let end = out.len();
    out.resize(end + width - 1, 0);
    out.copy_within(length_at + 1..end, length_at + width);
    out[length_at..length_at + width].copy_from_slice(&header[..width]);
}
