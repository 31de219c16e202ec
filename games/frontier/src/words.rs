//! What players asked for and were answered, in words: for tools that show people what happened. Nothing of it is a rule.

use marchland_region_core::{Action, Code};
use prost::Message;

use crate::action;
use crate::messages::{Drop, Gathered, Items, Say};

pub(crate) fn action(action: Action<'_>) -> Option<String> {
    match action.code {
        action::DROP => Drop::decode(action.body).ok().map(|what| format!("drop item {}", what.item)),
        action::SAY => Say::decode(action.body).ok().map(|what| format!("say {:?}", what.text)),
        _ => None,
    }
}

pub(crate) fn answer(action: u32, code: Code, body: &[u8]) -> Option<String> {
    match (code, action) {
        (Code::Refused, _) => std::str::from_utf8(body).ok().map(str::to_owned),
        (Code::Ok, action::GATHER | action::PICK_UP) => {
            Gathered::decode(body).ok().map(|got| format!("item {} of kind {}", got.item, got.kind))
        }
        (Code::Ok, action::INVENTORY) => Items::decode(body).ok().map(|items| format!("{} items", items.items.len())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_read_is_said_and_the_rest_is_left_to_its_code() {
        let say = Say { text: "good \"day\"".into() }.encode_to_vec();
        assert_eq!(super::action(Action { code: action::SAY, body: &say }).as_deref(), Some("say \"good \\\"day\\\"\""));
        assert_eq!(super::action(Action { code: action::SAY, body: b"\xff" }), None);
        assert_eq!(super::action(Action { code: action::GATHER, body: b"" }), None);
        let got = Gathered { item: 7, kind: 2 }.encode_to_vec();
        assert_eq!(answer(action::GATHER, Code::Ok, &got).as_deref(), Some("item 7 of kind 2"));
        assert_eq!(answer(action::GATHER, Code::Refused, b"no ore").as_deref(), Some("no ore"));
        assert_eq!(answer(action::SAY, Code::Ok, b""), None);
    }
}
