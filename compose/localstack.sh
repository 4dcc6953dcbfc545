#!/bin/sh
# What LocalStack holds once it is healthy: a queue with its dead-letter queue, the two secrets, and sample messages.
# compose.yaml has LocalStack run it. By hand, against any emulator that is still empty:
#
#   AWS_ENDPOINT_URL=http://127.0.0.1:4566 AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test compose/localstack.sh
set -eu

messages=${SAMPLE_MESSAGES:-$(dirname -- "$0")/messages.jsonl}
export AWS_DEFAULT_REGION="${AWS_DEFAULT_REGION:-us-east-1}" AWS_PAGER=

# Version 1 of the AWS CLI asks AWS itself for queues of some regions if the endpoint is in the environment alone.
cli() {
    if [ -n "${AWS_ENDPOINT_URL-}" ]; then
        aws --endpoint-url "$AWS_ENDPOINT_URL" "$@"
    else
        awslocal "$@"
    fi
}

# queue NAME ATTRIBUTES: makes it and prints its URL
queue() {
    cli sqs create-queue --queue-name "$1" --attributes "$2" --query QueueUrl --output text
}

dead_url=$(queue logins-dead '{"MessageRetentionPeriod": "1209600"}')
dead_arn=$(cli sqs get-queue-attributes --queue-url "$dead_url" --attribute-names QueueArn \
    --query Attributes.QueueArn --output text)
url=$(queue logins '{
    "VisibilityTimeout": "30",
    "RedrivePolicy": "{\"deadLetterTargetArn\": \"'"$dead_arn"'\", \"maxReceiveCount\": \"3\"}"
}')

# Without host, like the logins that RDS manages: DB_HOST is postgres inside the composition and 127.0.0.1 outside.
cli secretsmanager create-secret --name sqs-etl/database --query Name --output text --secret-string \
    '{"engine": "postgres", "username": "sqs_etl", "password": "local-use-only", "dbname": "postgres"}'
cli secretsmanager create-secret --name sqs-etl/masking --query Name --output text --secret-string \
    for-local-use-only-0123456789abcdef

sent=0
while IFS= read -r body; do
    cli sqs send-message --queue-url "$url" --message-body "$body" >/dev/null
    sent=$((sent + 1))
done <"$messages"
echo "$url holds $sent sample messages"
