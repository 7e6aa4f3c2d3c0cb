//! The bodies of requests, read and checked.
//!
//! What must stay true: a line that is no message is a complaint, a message
//! that cannot be served is a mistake with Maelstrom's code, and neither ends
//! the node (CONTRACT.md, section 5).

use serde_json::{Map, Value};

use super::elements::Kind;

type Body = Map<String, Value>;

/// Characters of a line that a complaint about it shows at most.
const SHOWN: usize = 200;

/// What a body asks for.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Request {
    Init {
        name: String,
        all: Vec<String>,
    },
    Topology,
    Echo(Value),
    /// `broadcast` or `add`.
    Say(Kind, Value),
    Read,
    Round,
    Sync(Vec<Value>),
    Digest,
    DigestSync {
        digest: String,
        messages: Option<Vec<Value>>,
    },
    Stats,
    /// What another node's machine says.
    Frames(Vec<Value>),
    /// The answer to something that this node said: nothing to do.
    Answer,
}

/// Why a request is not served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mistake {
    /// Maelstrom's number for it.
    pub code: u32,
    /// In words.
    pub text: String,
}

impl Mistake {
    /// A type that this node does not serve.
    fn unknown(kind: &str) -> Self {
        Self { code: 10, text: format!("this node does not serve {kind:?}") }
    }

    /// A request that lacks something, or has it in another form.
    pub fn malformed(text: impl Into<String>) -> Self {
        Self { code: 12, text: text.into() }
    }

    /// A failure of the node's own.
    pub fn crash(text: impl Into<String>) -> Self {
        Self { code: 13, text: text.into() }
    }
}

/// Takes a line apart: who sends, and the body. Otherwise a complaint.
pub(super) fn envelope(line: &str) -> Result<(String, Body), String> {
    // One line, whatever is in it.
    let shown = || line.trim().escape_debug().take(SHOWN).collect::<String>();
    let value: Value = serde_json::from_str(line)
        .map_err(|error| format!("not JSON, skipped: {error}: {}", shown()))?;
    let Value::Object(mut message) = value else {
        return Err(format!("not a message, skipped: {}", shown()));
    };
    match (message.remove("src"), message.remove("body")) {
        (Some(Value::String(src)), Some(Value::Object(body))) if !src.is_empty() => Ok((src, body)),
        _ => Err(format!("a message without src or body, skipped: {}", shown())),
    }
}

impl Request {
    /// Reads a body.
    pub fn read(body: &Body) -> Result<Self, Mistake> {
        let Some(kind) = body.get("type") else {
            return Err(Mistake::malformed("type is missing"));
        };
        let Some(kind) = kind.as_str() else {
            return Err(Mistake::malformed("type is not a string"));
        };
        if body.contains_key("in_reply_to") {
            // An answer is never answered, or two nodes might never stop.
            return Ok(Request::Answer);
        }
        if body.get("msg_id").is_some_and(|id| !id.is_u64()) {
            return Err(Mistake::malformed("msg_id is not a whole number from 0 up"));
        }
        let any = |key: &str| {
            let value = body.get(key).cloned();
            value.ok_or_else(|| Mistake::malformed(format!("{kind}: {key} is missing")))
        };
        let list = |key: &str| match any(key)? {
            Value::Array(list) => Ok(list),
            _ => Err(Mistake::malformed(format!("{kind}: {key} is not a list"))),
        };
        let text = |key: &str| match any(key)? {
            Value::String(text) => Ok(text),
            _ => Err(Mistake::malformed(format!("{kind}: {key} is not a string"))),
        };
        Ok(match kind {
            "init" => {
                let name = text("node_id")?;
                let all = list("node_ids")?.into_iter().map(|name| match name {
                    Value::String(name) => Ok(name),
                    _ => Err(Mistake::malformed("init: node_ids are not all strings")),
                });
                let all = all.collect::<Result<_, _>>()?;
                if name.is_empty() {
                    return Err(Mistake::malformed("init: node_id is empty"));
                }
                Request::Init { name, all }
            }
            "topology" => match any("topology")? {
                Value::Object(_) => Request::Topology,
                _ => return Err(Mistake::malformed("topology: topology is not an object")),
            },
            "echo" => Request::Echo(any("echo")?),
            "broadcast" => Request::Say(Kind::Message, any("message")?),
            "add" => Request::Say(Kind::Element, any("element")?),
            "read" => Request::Read,
            "gossip_round" => Request::Round,
            "gossip_sync" => Request::Sync(list("messages")?),
            "digest" => Request::Digest,
            "digest_sync" => {
                let messages = match body.get("remote_messages") {
                    None | Some(Value::Null) => None,
                    Some(_) => Some(list("remote_messages")?),
                };
                Request::DigestSync { digest: text("remote_digest")?, messages }
            }
            "stats" => Request::Stats,
            "frames" => Request::Frames(list("frames")?),
            other => return Err(Mistake::unknown(other)),
        })
    }
}
