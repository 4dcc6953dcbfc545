//! What the SQS event source mapping reads out of a function's answer. Pure; it deletes nothing.
//!
//! The rules are AWS's:
//! <https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html>. Where they are
//! silent, the reading here is the one that keeps messages: an object without the key
//! `batchItemFailures` but with others fails the batch.

use std::collections::HashSet;

use serde_json::Value;

/// What the mapping does with the batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every message is deleted.
    Succeeded,
    /// These come back, each named once and in the function's order; the others are deleted.
    Partial {
        /// Message ids of the batch.
        failed: Vec<String>,
    },
    /// Every message comes back.
    AllFailed {
        /// The rule that the answer broke.
        why: String,
    },
}

impl Verdict {
    /// Whether this message comes back.
    pub fn is_failed(&self, message_id: &str) -> bool {
        match self {
            Verdict::Succeeded => false,
            Verdict::Partial { failed } => failed.iter().any(|id| id == message_id),
            Verdict::AllFailed { .. } => true,
        }
    }
}

/// Judges what came back for the batch `message_ids`: a returned body, or why there is none. Without
/// `report_batch_item_failures` any return is a success, whatever it says.
pub fn verdict(answer: Result<&[u8], &str>, message_ids: &[&str], report_batch_item_failures: bool) -> Verdict {
    let judged = match answer {
        Ok(_) if !report_batch_item_failures => return Verdict::Succeeded,
        Ok(body) => failed_ids(body, message_ids),
        Err(why) => Err(why.to_owned()),
    };
    match judged {
        Ok(failed) if failed.is_empty() => Verdict::Succeeded,
        Ok(failed) => Verdict::Partial { failed },
        Err(why) => Verdict::AllFailed { why },
    }
}

fn failed_ids(body: &[u8], message_ids: &[&str]) -> Result<Vec<String>, String> {
    let known: HashSet<&str> = message_ids.iter().copied().collect();
    let mut named = HashSet::new();
    let mut failed = Vec::new();
    for failure in failures(body)? {
        let id = identifier(&failure)?;
        if !known.contains(id.as_str()) {
            return Err(format!("the itemIdentifier {id:?} is not in the batch"));
        }
        if named.insert(id.clone()) {
            failed.push(id);
        }
    }
    Ok(failed)
}

fn failures(body: &[u8]) -> Result<Vec<Value>, String> {
    if body.trim_ascii().is_empty() {
        return Ok(Vec::new());
    }
    let response = serde_json::from_slice(body).map_err(|_| "the response is not JSON".to_owned())?;
    let mut response = match response {
        Value::Null => return Ok(Vec::new()),
        Value::String(text) if text.is_empty() => return Ok(Vec::new()),
        Value::Object(response) => response,
        _ => return Err("the response is not a JSON object".to_owned()),
    };
    match response.remove("batchItemFailures") {
        Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(failures)) => Ok(failures),
        Some(_) => Err("batchItemFailures is not a list".to_owned()),
        None if response.is_empty() => Ok(Vec::new()),
        None => Err("the response has other keys than batchItemFailures".to_owned()),
    }
}

fn identifier(failure: &Value) -> Result<String, String> {
    match failure.get("itemIdentifier") {
        Some(Value::String(id)) if id.is_empty() => Err("an itemIdentifier is empty".to_owned()),
        Some(Value::String(id)) => Ok(id.clone()),
        Some(Value::Null) => Err("an itemIdentifier is null".to_owned()),
        Some(_) => Err("an itemIdentifier is not a string".to_owned()),
        None => Err("a batch item failure has no key itemIdentifier".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BATCH: [&str; 3] = ["a", "b", "c"];

    fn check(body: &str, expected: Verdict) {
        assert_eq!(verdict(Ok(body.as_bytes()), &BATCH, true), expected, "{body}");
        assert_eq!(verdict(Ok(body.as_bytes()), &BATCH, false), Verdict::Succeeded, "flag off: {body}");
    }

    fn partial(failed: &[&str]) -> Verdict {
        Verdict::Partial { failed: failed.iter().map(|id| (*id).to_owned()).collect() }
    }

    fn all_failed(why: &str) -> Verdict {
        Verdict::AllFailed { why: why.to_owned() }
    }

    #[test]
    fn an_empty_or_null_list_or_response_is_a_success() {
        for body in [r#"{"batchItemFailures":[]}"#, r#"{"batchItemFailures":null}"#, "{}", "null", "", " \n", r#""""#] {
            check(body, Verdict::Succeeded);
        }
    }

    #[test]
    fn named_messages_come_back_and_the_others_do_not() {
        check(r#"{"batchItemFailures":[{"itemIdentifier":"b"}]}"#, partial(&["b"]));
        check(
            r#"{"batchItemFailures":[{"itemIdentifier":"c"},{"itemIdentifier":"a"},{"itemIdentifier":"c"}]}"#,
            partial(&["c", "a"]),
        );
        check(r#"{"batchItemFailures":[{"itemIdentifier":"b","x":1}],"y":2}"#, partial(&["b"]));
        let verdict = partial(&["b"]);
        assert_eq!(BATCH.map(|id| verdict.is_failed(id)), [false, true, false]);
    }

    #[test]
    fn an_answer_that_breaks_a_rule_fails_the_whole_batch() {
        for (body, why) in [
            ("{", "the response is not JSON"),
            ("ok", "the response is not JSON"),
            (r#""ok""#, "the response is not a JSON object"),
            ("[]", "the response is not a JSON object"),
            ("true", "the response is not a JSON object"),
            (r#"{"batchItemFailures":[{"itemIdentifier":""}]}"#, "an itemIdentifier is empty"),
            (r#"{"batchItemFailures":[{"itemIdentifier":null}]}"#, "an itemIdentifier is null"),
            (r#"{"batchItemFailures":[{"itemIdentifier":1}]}"#, "an itemIdentifier is not a string"),
            (r#"{"batchItemFailures":[{"messageId":"a"}]}"#, "a batch item failure has no key itemIdentifier"),
            (r#"{"batchItemFailures":["a"]}"#, "a batch item failure has no key itemIdentifier"),
            (r#"{"batchItemFailures":[null]}"#, "a batch item failure has no key itemIdentifier"),
            (r#"{"batchItemFailures":{"itemIdentifier":"a"}}"#, "batchItemFailures is not a list"),
            (r#"{"batchItemFailures":"a"}"#, "batchItemFailures is not a list"),
            (
                r#"{"batch_item_failures":[{"itemIdentifier":"a"}]}"#,
                "the response has other keys than batchItemFailures",
            ),
            (
                r#"{"batchItemFailures":[{"itemIdentifier":"a"},{"itemIdentifier":"z"}]}"#,
                r#"the itemIdentifier "z" is not in the batch"#,
            ),
        ] {
            check(body, all_failed(why));
        }
    }

    #[test]
    fn a_function_error_fails_the_whole_batch_with_the_flag_and_without() {
        for flag in [true, false] {
            let verdict = verdict(Err("it timed out"), &BATCH, flag);
            assert_eq!(verdict, all_failed("it timed out"));
            assert!(BATCH.iter().all(|id| verdict.is_failed(id)));
        }
    }
}
