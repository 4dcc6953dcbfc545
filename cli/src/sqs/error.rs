//! Why a call to SQS failed, without quoting it: a code, what to do about it, and whether it will last.

use std::error::Error;

use anyhow::Chain;
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_sqs::config::http::HttpResponse;
use aws_sdk_sqs::error::{ProvideErrorMetadata, SdkError};

use super::Refused;

/// A call to SQS that failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("cannot {action}: {reason}")]
pub struct QueueError {
    action: &'static str,
    reason: String,
    /// SQS's name of the error, or ours.
    pub code: String,
    /// Waiting does not help: somebody has to change something.
    pub is_lasting: bool,
}

const NO_CREDENTIALS: &str = "no AWS credentials: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY";
const NO_KEY: &str = "access denied: the role lacks kms:Decrypt on the queue's key, or kms:GenerateDataKey to send";
const CREDENTIALS: &str = "the AWS credentials cannot be had where they should come from: is the session over? Try \
                           `aws sso login`";

impl QueueError {
    pub fn of<E>(action: &'static str, error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let (code, reason, is_lasting) = match error.as_service_error() {
            Some(refusal) => refused(refusal.code().unwrap_or("no error code")),
            None => unanswered(error),
        };
        Self { action, reason, code, is_lasting }
    }

    /// SQS's name of the error without the name of its older protocol in front.
    pub fn short_code(&self) -> &str {
        short(&self.code)
    }

    /// The call failed because of one entry or of how many there were; others, or fewer, may pass.
    pub fn is_about_contents(&self) -> bool {
        matches!(
            self.short_code(),
            "BatchRequestTooLong" | "InvalidMessageContents" | "InvalidParameterValue" | "InvalidAttributeValue"
        )
    }

    /// The server has no such call. SQS has them all; emulators lag behind.
    pub fn is_unknown_call(&self) -> bool {
        matches!(
            self.short_code(),
            "InvalidAction"
                | "UnknownOperation"
                | "UnknownOperationException"
                | "UnsupportedOperation"
                | "NotImplemented"
                | "NotImplementedException"
        )
    }

    #[cfg(test)]
    pub fn made_up(code: &str, is_lasting: bool) -> Self {
        Self { action: "test", reason: code.to_owned(), code: code.to_owned(), is_lasting }
    }

    /// As the refusal of one entry.
    pub fn refusal(&self, position: usize) -> Refused {
        Refused { is_of_call: true, ..Refused::of_entry(position, &self.code, self.is_lasting) }
    }
}

fn short(code: &str) -> &str {
    code.rsplit(['.', '#']).next().unwrap_or(code)
}

impl Refused {
    /// What to do about it.
    pub fn reason(&self) -> String {
        refused(&self.code).1
    }
}

fn refused(code: &str) -> (String, String, bool) {
    // SQS has had other names for its errors in its older protocol, and still tells them. Those about a key begin with KMS.
    let is_about_key = code.starts_with("KMS.") && !code.ends_with("ThrottlingException");
    let (hint, is_lasting) = match short(code) {
        "AccessDeniedException" if is_about_key => (NO_KEY, true),
        _ if is_about_key => ("the queue's key cannot be used", true),
        "QueueDoesNotExist" | "NonExistentQueue" => ("there is no such queue in this account and region", true),
        "AccessDenied" | "AccessDeniedException" => {
            ("access denied: the role lacks this action of sqs on this queue", true)
        }
        "InvalidClientTokenId"
        | "UnrecognizedClientException"
        | "SignatureDoesNotMatch"
        | "MissingAuthenticationToken"
        | "AuthFailure" => ("the AWS credentials are refused", true),
        "InvalidAddress" => ("the queue's URL does not belong to this region or endpoint", true),
        "ExpiredToken" | "ExpiredTokenException" => ("the AWS credentials are out of date", true),
        "KmsAccessDenied" => (NO_KEY, true),
        "KmsDisabled" | "KmsInvalidState" | "KmsNotFound" | "KmsOptInRequired" | "KmsInvalidKeyUsage" => {
            ("the queue's key cannot be used", true)
        }
        "ResourceNotFoundException" => ("SQS knows no such thing, or knows it no longer", true),
        "OverLimit" => ("too many messages of this queue are invisible", false),
        "InvalidParameterValue"
        | "InvalidAttributeValue"
        | "InvalidParameterCombination"
        | "MissingParameter"
        | "BatchRequestTooLong"
        | "InvalidMessageContents"
        | "UnsupportedOperation" => ("refused", true),
        _ => ("refused", false),
    };
    (code.to_owned(), format!("{hint} ({code})"), is_lasting)
}

fn unanswered<E: Error + 'static>(error: &SdkError<E, HttpResponse>) -> (String, String, bool) {
    let credentials = Chain::new(error).find_map(|cause| cause.downcast_ref::<CredentialsError>());
    let (code, reason, is_lasting) = match (credentials, error) {
        (Some(CredentialsError::CredentialsNotLoaded(_)), _) => ("NoCredentials", NO_CREDENTIALS, true),
        (Some(_), _) => ("Credentials", CREDENTIALS, false),
        (None, SdkError::TimeoutError(_)) => ("TimedOut", "no answer from SQS in time", false),
        (None, SdkError::DispatchFailure(failure)) if failure.is_timeout() => {
            ("TimedOut", "no answer from SQS in time", false)
        }
        (None, SdkError::DispatchFailure(failure)) if failure.is_io() => {
            ("Unreachable", "SQS cannot be reached", false)
        }
        (None, SdkError::DispatchFailure(_)) => {
            ("Unreachable", "the request could not be sent: is AWS_ENDPOINT_URL, if set, a URL?", false)
        }
        (None, SdkError::ConstructionFailure(_)) => {
            ("NotBuilt", "the request could not be built: are AWS_REGION and the queue's URL right?", true)
        }
        _ => ("Unreadable", "the answer could not be read", false),
    };
    (code.to_owned(), reason.to_owned(), is_lasting)
}

#[cfg(test)]
mod tests {
    use aws_sdk_sqs::error::ErrorMetadata;
    use aws_sdk_sqs::operation::receive_message::ReceiveMessageError;

    use super::*;

    #[track_caller]
    fn check(code: &str, words: &str, is_lasting: bool) {
        let metadata = ErrorMetadata::builder().code(code).message("593-47-5928").build();
        let response = HttpResponse::new(400.try_into().unwrap(), "593-47-5928".into());
        let error = SdkError::service_error(ReceiveMessageError::generic(metadata), response);
        let error = QueueError::of("receive messages", &error);
        assert!(error.to_string().contains(words), "{error}");
        assert!(error.to_string().contains(code) && !format!("{error} {error:?}").contains("593"), "{error:?}");
        assert_eq!(error.is_lasting, is_lasting, "{error}");
    }

    #[test]
    fn an_error_says_what_to_do_and_leaves_the_text_out() {
        check("AWS.SimpleQueueService.NonExistentQueue", "no such queue", true);
        check("com.amazonaws.sqs#QueueDoesNotExist", "no such queue", true);
        check("AccessDenied", "access denied", true);
        check("InvalidAddress", "region", true);
        check("KMS.AccessDeniedException", "kms:Decrypt", true);
        check("KMS.DisabledException", "key cannot be used", true);
        check("KMS.ThrottlingException", "refused", false);
        check("OverLimit", "invisible", false);
        check("ResourceNotFoundException", "knows no such thing", true);
        check("RequestThrottled", "refused", false);
    }
}
