// rabbitmq-c as Swift sees it; what Swift cannot import is wrapped here: a variadic call (login), macros with a cast
// (method numbers, field kinds, flags) and unions (table values).
#pragma once
#include <amqp.h>
#include <amqp_framing.h>
#include <amqp_ssl_socket.h>
#include <amqp_tcp_socket.h>
#include <stdint.h>

static const uint32_t HUB_CONNECTION_CLOSE = AMQP_CONNECTION_CLOSE_METHOD;
static const uint32_t HUB_CONNECTION_CLOSE_OK = AMQP_CONNECTION_CLOSE_OK_METHOD;
static const uint32_t HUB_CONNECTION_BLOCKED = AMQP_CONNECTION_BLOCKED_METHOD;
static const uint32_t HUB_CONNECTION_UNBLOCKED = AMQP_CONNECTION_UNBLOCKED_METHOD;
static const uint32_t HUB_CHANNEL_CLOSE = AMQP_CHANNEL_CLOSE_METHOD;
static const uint32_t HUB_CHANNEL_CLOSE_OK = AMQP_CHANNEL_CLOSE_OK_METHOD;
static const uint32_t HUB_BASIC_PUBLISH = AMQP_BASIC_PUBLISH_METHOD;
static const uint32_t HUB_BASIC_RETURN = AMQP_BASIC_RETURN_METHOD;
static const uint32_t HUB_BASIC_DELIVER = AMQP_BASIC_DELIVER_METHOD;
static const uint32_t HUB_BASIC_ACK = AMQP_BASIC_ACK_METHOD;
static const uint32_t HUB_BASIC_NACK = AMQP_BASIC_NACK_METHOD;
static const uint32_t HUB_BASIC_CANCEL = AMQP_BASIC_CANCEL_METHOD;

static const uint32_t HUB_FLAG_CONTENT_TYPE = AMQP_BASIC_CONTENT_TYPE_FLAG;
static const uint32_t HUB_FLAG_CONTENT_ENCODING = AMQP_BASIC_CONTENT_ENCODING_FLAG;
static const uint32_t HUB_FLAG_HEADERS = AMQP_BASIC_HEADERS_FLAG;
static const uint32_t HUB_FLAG_DELIVERY_MODE = AMQP_BASIC_DELIVERY_MODE_FLAG;
static const uint32_t HUB_FLAG_MESSAGE_ID = AMQP_BASIC_MESSAGE_ID_FLAG;
static const uint32_t HUB_FLAG_TIMESTAMP = AMQP_BASIC_TIMESTAMP_FLAG;
static const uint32_t HUB_FLAG_USER_ID = AMQP_BASIC_USER_ID_FLAG;
static const uint32_t HUB_FLAG_APP_ID = AMQP_BASIC_APP_ID_FLAG;

static inline amqp_table_entry_t hub_text_entry(amqp_bytes_t key, amqp_bytes_t text) {
  amqp_table_entry_t entry;
  entry.key = key;
  entry.value.kind = AMQP_FIELD_KIND_UTF8;
  entry.value.value.bytes = text;
  return entry;
}

static inline amqp_table_entry_t hub_number_entry(amqp_bytes_t key, int64_t number) {
  amqp_table_entry_t entry;
  entry.key = key;
  entry.value.kind = AMQP_FIELD_KIND_I64;
  entry.value.value.i64 = number;
  return entry;
}

static inline amqp_table_entry_t hub_boolean_entry(amqp_bytes_t key, int truth) {
  amqp_table_entry_t entry;
  entry.key = key;
  entry.value.kind = AMQP_FIELD_KIND_BOOLEAN;
  entry.value.value.boolean = truth;
  return entry;
}

static inline amqp_bytes_t hub_text(amqp_field_value_t value) {
  return value.kind == AMQP_FIELD_KIND_UTF8 ? value.value.bytes : amqp_empty_bytes;
}

// PLAIN login under a connection name, with the capabilities whose frames hub handles (without them the broker stays
// silent about a deleted queue or an alarm). The library merges the table with its own and copies it.
static inline amqp_rpc_reply_t hub_login(amqp_connection_state_t state, const char *vhost, int frame_bytes_max,
                                         int heartbeat_seconds, const char *connection_name, const char *user,
                                         const char *password) {
  amqp_table_entry_t capabilities[4] = {
      hub_boolean_entry(amqp_cstring_bytes("publisher_confirms"), 1),
      hub_boolean_entry(amqp_cstring_bytes("consumer_cancel_notify"), 1),
      hub_boolean_entry(amqp_cstring_bytes("connection.blocked"), 1),
      hub_boolean_entry(amqp_cstring_bytes("basic.nack"), 1),
  };
  amqp_table_entry_t properties[3];
  properties[0] = hub_text_entry(amqp_cstring_bytes("connection_name"), amqp_cstring_bytes(connection_name));
  properties[1] = hub_text_entry(amqp_cstring_bytes("product"), amqp_cstring_bytes("hub"));
  properties[2].key = amqp_cstring_bytes("capabilities");
  properties[2].value.kind = AMQP_FIELD_KIND_TABLE;
  properties[2].value.value.table.num_entries = 4;
  properties[2].value.value.table.entries = capabilities;
  amqp_table_t table = {3, properties};
  return amqp_login_with_properties(state, vhost, 0, frame_bytes_max, heartbeat_seconds, &table,
                                    AMQP_SASL_METHOD_PLAIN, user, password);
}
