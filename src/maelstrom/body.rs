//! Reads and checks the bodies of requests.
//!
//! What must stay true: a line that is no message leads to a complaint, a message that cannot be
//! served leads to an error with Maelstrom's code, and neither ends the node
//! (CONTRACT.md, section 5).

use serde_json::{Map, Value};

use super::workload::Kind;

type Body = Map<String, Value>;

/// The types of requests that a node serves.
const SERVED: [&str; 13] = [
    "init",
    "topology",
    "echo",
    "broadcast",
    "add",
    "generate",
    "read",
    "gossip_round",
    "gossip_sync",
    "digest",
    "digest_sync",
    "stats",
    "frames",
];

/// Characters of a bad line that a complaint shows at most.
const SHOWN: usize = 200;

/// The request that a body makes.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Call {
    Init {
        name: String,
        all: Vec<String>,
    },
    Topology,
    Echo(Value),
    /// `broadcast`, or `add` to a set.
    Say(Kind, Value),
    /// `add` to a counter.
    Count(i64),
    Generate,
    Read,
    Round,
    Sync(Vec<Value>),
    Digest,
    DigestSync {
        digest: String,
        messages: Option<Vec<Value>>,
    },
    Stats,
    /// The frames of another node's machine.
    Frames(Vec<Value>),
    /// The answer to something that this node said. Nothing is done with it.
    Answer,
}

/// The reason why a request is not served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mistake {
    /// Maelstrom's number for this kind of error.
    pub code: u32,
    /// The reason in words.
    pub text: String,
}

impl Mistake {
    /// A type that this node does not serve.
    fn unknown(kind: &str) -> Self {
        Self { code: 10, text: format!("this node does not serve {kind:?}") }
    }

    /// The error for a request that lacks a field, or has one in another form.
    pub fn malformed(text: impl Into<String>) -> Self {
        Self { code: 12, text: text.into() }
    }

    /// The error for a failure of the node itself.
    pub fn crash(text: impl Into<String>) -> Self {
        Self { code: 13, text: text.into() }
    }
}

/// Splits a line into its sender and its body, or returns a complaint.
pub(super) fn envelope(line: &str) -> Result<(String, Body), String> {
    // Escaped, so that a complaint is one line whatever the input holds.
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

impl Call {
    /// Reads a body. The workload, if it is known, decides which field an `add` has to have.
    pub fn read(body: &Body, workload: Option<Kind>) -> Result<Self, Mistake> {
        let Some(kind) = body.get("type") else {
            return Err(Mistake::malformed("type is missing"));
        };
        let Some(kind) = kind.as_str() else {
            return Err(Mistake::malformed("type is not a string"));
        };
        if body.contains_key("in_reply_to") {
            // An answer is never answered. Otherwise two nodes might answer each other for ever.
            return Ok(Call::Answer);
        }
        // This is checked first, because a type that is not served has no fields that could be
        // missing.
        if !SERVED.contains(&kind) {
            return Err(Mistake::unknown(kind));
        }
        if body.get("msg_id").is_some_and(|id| !id.is_u64()) {
            return Err(Mistake::malformed("msg_id is not a whole number from 0 up"));
        }
        Fields { kind, body }.read(workload)
    }
}

/// The fields of a request whose type is served.
struct Fields<'a> {
    kind: &'a str,
    body: &'a Body,
}

impl Fields<'_> {
    fn wrong(&self, key: &str, what: &str) -> Mistake {
        Mistake::malformed(format!("{}: {key} {what}", self.kind))
    }

    fn any(&self, key: &str) -> Result<Value, Mistake> {
        self.body.get(key).cloned().ok_or_else(|| self.wrong(key, "is missing"))
    }

    fn list(&self, key: &str) -> Result<Vec<Value>, Mistake> {
        match self.any(key)? {
            Value::Array(list) => Ok(list),
            _ => Err(self.wrong(key, "is not a list")),
        }
    }

    fn text(&self, key: &str) -> Result<String, Mistake> {
        match self.any(key)? {
            Value::String(text) => Ok(text),
            _ => Err(self.wrong(key, "is not a string")),
        }
    }

    fn read(&self, workload: Option<Kind>) -> Result<Call, Mistake> {
        Ok(match self.kind {
            "init" => self.init()?,
            "topology" => match self.any("topology")? {
                Value::Object(_) => Call::Topology,
                _ => return Err(self.wrong("topology", "is not an object")),
            },
            "echo" => Call::Echo(self.any("echo")?),
            "broadcast" => Call::Say(Kind::Message, self.any("message")?),
            "add" => self.add(workload)?,
            "generate" => Call::Generate,
            "read" => Call::Read,
            "gossip_round" => Call::Round,
            "gossip_sync" => Call::Sync(self.list("messages")?),
            "digest" => Call::Digest,
            "digest_sync" => {
                let messages = match self.body.get("remote_messages") {
                    None | Some(Value::Null) => None,
                    Some(_) => Some(self.list("remote_messages")?),
                };
                Call::DigestSync { digest: self.text("remote_digest")?, messages }
            }
            "stats" => Call::Stats,
            "frames" => Call::Frames(self.list("frames")?),
            other => return Err(Mistake::unknown(other)),
        })
    }

    fn init(&self) -> Result<Call, Mistake> {
        let name = self.text("node_id")?;
        let all = self.list("node_ids")?.into_iter().map(|name| match name {
            Value::String(name) => Ok(name),
            _ => Err(self.wrong("node_ids", "are not all strings")),
        });
        let all = all.collect::<Result<_, _>>()?;
        if name.is_empty() {
            return Err(self.wrong("node_id", "is empty"));
        }
        Ok(Call::Init { name, all })
    }

    fn add(&self, workload: Option<Kind>) -> Result<Call, Mistake> {
        let counts = match workload {
            Some(Kind::Element) => false,
            Some(Kind::Counter { .. }) => true,
            // The workload is not known yet, so the fields of the request decide.
            _ => !self.body.contains_key("element") && self.body.contains_key("delta"),
        };
        if !counts {
            return Ok(Call::Say(Kind::Element, self.any("element")?));
        }
        let delta = self.any("delta")?.as_i64();
        let delta = delta.ok_or_else(|| self.wrong("delta", "is not a whole number of 64 bits"))?;
        if delta < 0 && workload == Some(Kind::Counter { grows_only: true }) {
            return Err(Mistake::malformed("add: a g-counter only grows"));
        }
        Ok(Call::Count(delta))
    }
}
