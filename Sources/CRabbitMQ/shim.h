// rabbitmq-c as Swift sees it; what Swift cannot import (variadic calls, cast macros) is wrapped here.
#pragma once
#include <amqp.h>
#include <amqp_framing.h>
#include <amqp_tcp_socket.h>
#include <amqp_ssl_socket.h>
