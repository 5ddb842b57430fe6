import Foundation
import HubEngine
import Testing

@testable import RabbitTransport

extension BrokerTests {
  @Suite(.serialized) struct Encrypting {
    @Test("BRK-07: messages pass through TLS", arguments: ["'tlsv1.3','tlsv1.2'", "'tlsv1.2'"])
    func messagesPassThroughTLS(versions: String) async throws {
      try await TestBroker.with { broker in
        try await broker.withTLS(versions: versions) { port, authority, _ in
          let url = "amqps\(broker.url(host: "localhost", port: port).dropFirst(4))"
          let head = try await broker.transport(url: url + "?cacertfile=" + authority).open(
            .head(offices: []))
          for size in [1, 70_000, 4 << 20] {
            let body = [UInt8](repeating: 8, count: size)
            try await head.publish(body, to: .head, messageID: "\(size)")
            let delivery = try await within(.seconds(10)) { try await head.next() }
            #expect(delivery.body == body)
            try await head.acknowledge(delivery.tag)
          }
          try await within(.seconds(5)) { try await head.confirmed() }
          await head.close()
        }
      }
    }

    @Test("BRK-07: a stranger's certificate, another name, an old TLS and plain text are refused")
    func aDoubtfulBrokerIsRefused() async throws {
      try await TestBroker.with { broker in
        try await broker.withTLS { port, authority, stranger in
          let named = "amqps\(broker.url(host: "localhost", port: port).dropFirst(4))"
          let numbered = "amqps\(broker.url(host: "127.0.0.1", port: port).dropFirst(4))"
          let plain = "amqps\(broker.url().dropFirst(4))"
          func failure(_ url: String, _ file: String?) async -> TransportError? {
            do {
              let session = try await broker.transport(url: url, authorityFile: file).open(.head(offices: []))
              await session.close()
              return nil
            } catch { return error as? TransportError }
          }
          #expect(await failure(named, stranger)?.kind == .refused)
          #expect(await failure(named, nil)?.kind == .refused, "the system's authorities do not know it")
          let number = await failure(numbered, authority)
          #expect(number?.kind == .refused)
          #expect(number?.message.contains("by DNS name") == true)
          #expect(await failure(plain, authority)?.kind == .unreachable)
          #expect(await failure(named, "/nonexistent.pem")?.message.contains("/nonexistent.pem") == true)
          #expect(await failure(named, authority) == nil)
          // As it is while an authority is replaced by another one.
          let both = authority + ".both"
          let texts = try [stranger, authority].map { try String(contentsOfFile: $0, encoding: .utf8) }
          try texts.joined().write(toFile: both, atomically: true, encoding: .utf8)
          #expect(await failure(named, both) == nil)
        }
        try await broker.withTLS(versions: "'tlsv1.1'") { port, authority, _ in
          let url = "amqps\(broker.url(host: "localhost", port: port).dropFirst(4))"
          #expect(
            await kind {
              _ = try await broker.transport(url: url, authorityFile: authority).open(.head(offices: []))
            } == .unreachable)
        }
      }
    }
  }
}
