//! Reading protobuf by hand where a tree of messages would cost more than the rest of a bot.

use marchland_proto::client::{Pong, Refused, Welcome};
use prost::Message;

use super::ClientError;

/// A frame that can not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadFrame {
    /// A field or message ends early.
    #[error("message is cut short")]
    Truncated,
    /// A field of another type than the schema's, or a number that no field has.
    #[error("field {0} has an unexpected type")]
    Type(u64),
    /// A packed record that no version of the protocol has, or a name that is not UTF-8.
    #[error("packed records are not readable")]
    Records,
}

impl From<BadFrame> for ClientError {
    fn from(error: BadFrame) -> Self {
        ClientError::Protocol(error.to_string())
    }
}

/// One field's value.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Varint(u64),
    Fixed32(u32),
    Fixed64,
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    pub(super) fn uint(self, field: u64) -> Result<u64, BadFrame> {
        if let Self::Varint(value) = self { Ok(value) } else { Err(BadFrame::Type(field)) }
    }

    pub(super) fn sint(self, field: u64) -> Result<i32, BadFrame> {
        let raw = self.uint(field)? as u32;
        Ok((raw >> 1) as i32 ^ -((raw & 1) as i32))
    }

    pub(super) fn float(self, field: u64) -> Result<f32, BadFrame> {
        if let Self::Fixed32(bits) = self { Ok(f32::from_bits(bits)) } else { Err(BadFrame::Type(field)) }
    }

    pub(super) fn bytes(self, field: u64) -> Result<&'a [u8], BadFrame> {
        if let Self::Bytes(bytes) = self { Ok(bytes) } else { Err(BadFrame::Type(field)) }
    }
}

fn varint(bytes: &mut &[u8]) -> Result<u64, BadFrame> {
    let mut value = 0u64;
    for shift in (0..70).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or(BadFrame::Truncated)?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(BadFrame::Truncated)
}

fn take<'a>(bytes: &mut &'a [u8], len: usize) -> Result<&'a [u8], BadFrame> {
    let (taken, rest) = bytes.split_at_checked(len).ok_or(BadFrame::Truncated)?;
    *bytes = rest;
    Ok(taken)
}

/// Every field of a message, in order.
pub(super) fn fields<'a>(
    mut bytes: &'a [u8],
    mut each: impl FnMut(u64, Value<'a>) -> Result<(), BadFrame>,
) -> Result<(), BadFrame> {
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let field = key >> 3;
        let value = match key & 7 {
            0 => Value::Varint(varint(&mut bytes)?),
            1 => {
                take(&mut bytes, 8)?;
                Value::Fixed64
            }
            2 => {
                let len = varint(&mut bytes)?;
                Value::Bytes(take(&mut bytes, usize::try_from(len).map_err(|_| BadFrame::Truncated)?)?)
            }
            5 => {
                let raw = take(&mut bytes, 4)?;
                Value::Fixed32(u32::from_le_bytes([raw[0], raw[1], raw[2], raw[3]]))
            }
            _ => return Err(BadFrame::Type(field)),
        };
        each(field, value)?;
    }
    Ok(())
}

/// A message of the server; the frame is not decoded yet.
pub(super) enum Said<'a> {
    Welcome(Welcome),
    Frame(&'a [u8]),
    Pong(Pong),
    Refused(Refused),
    /// Of a later version.
    Unknown,
}

pub(super) fn server_message(bytes: &[u8]) -> Result<Said<'_>, ClientError> {
    let bad = |e: prost::DecodeError| ClientError::Protocol(e.to_string());
    let mut body = None;
    fields(bytes, |field, value| {
        if let Value::Bytes(bytes) = value {
            body = Some((field, bytes));
        }
        Ok(())
    })?;
    Ok(match body {
        Some((1, bytes)) => Said::Welcome(Welcome::decode(bytes).map_err(bad)?),
        Some((2, bytes)) => Said::Frame(bytes),
        Some((3, bytes)) => Said::Pong(Pong::decode(bytes).map_err(bad)?),
        Some((4, bytes)) => Said::Refused(Refused::decode(bytes).map_err(bad)?),
        _ => Said::Unknown,
    })
}
