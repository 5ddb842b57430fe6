import Foundation
import HubEngine
import Logging
import Testing

@testable import RabbitTransport

/// The hazards of the broker (HAZARDS, section Broker) that this target answers for, on a real broker.
///
/// | id | hazard |
/// | --- | --- |
/// | BRK-01 | a confirm says nothing of a queue that is gone: the transport reports the consumer's side only |
/// | BRK-02 | queues are bounded and drop their oldest; what they drop does not fill hub.dead |
/// | BRK-03 | a deleted or missing queue leaves no silent, dead consumer |
/// | BRK-04 | confirms (also of several), refusals and closed channels are read |
/// | BRK-05 | publishing under an alarm holds no thread, and close returns |
/// | BRK-06 | heartbeats: an idle link stays, a hung broker is noticed |
/// | BRK-07 | TLS 1.2 or later, certificate and name verified |
/// | BRK-08 | what cannot be understood goes to hub.dead and never comes back |
/// | BRK-09 | head declares at every connection, also on a wiped broker; a branch declares nothing |
/// | BRK-10 | one consumer a queue |
/// | BRK-11 | large messages pass, endless ones do not fill the memory |
/// | BRK-12 | after an error nothing is acknowledged by mistake: the queue delivers again |
/// | BRK-13 | the password is in no error |
/// | BRK-14 | sessions leave no descriptor and no thread behind |
/// | BRK-15 | a queue with other settings is kept |
/// | BRK-16 | a branch that was away does not read through all that was sent meanwhile |
@Suite(.serialized, .timeLimit(.minutes(5))) struct BrokerTests {}

extension BrokerTests {
  @Suite(.serialized) struct Delivering {
    @Test func whatHeadPublishesReachesEveryBranch() async throws {
      try await TestBroker.with { broker in
        let transport = try broker.transport()
        let head = try await transport.open(.head(offices: ["north", "south"]))
        let north = try await transport.open(.branch(office: "north"))
        let south = try await transport.open(.branch(office: "south"))
        try await head.publish([1, 2, 3], to: .branches, messageID: "m-1")
        try await head.confirmed()
        for branch in [north, south] {
          let delivery = try await within(.seconds(5)) { try await branch.next() }
          #expect(delivery.body == [1, 2, 3])
          #expect(delivery.messageID == "m-1")
          #expect(delivery.userID == broker.address.user)
          #expect(delivery.appID == "hub")
          #expect(delivery.contentType == "application/x-protobuf")
          #expect(delivery.contentEncoding == "zstd")
          #expect(!delivery.redelivered)
          try await branch.acknowledge(delivery.tag)
        }
        try await north.publish([4], to: .head, messageID: "m-2")
        let up = try await within(.seconds(5)) { try await head.next() }
        #expect(up.body == [4])
        try await head.acknowledge(up.tag)
        try await head.publish([5], to: .office("south"), messageID: "m-3")
        let direct = try await within(.seconds(5)) { try await south.next() }
        #expect(direct.messageID == "m-3")
        try await south.acknowledge(direct.tag)
        for session in [head, north, south] { await session.close() }
        for queue in ["hub.head", "hub.office.north", "hub.office.south"] {
          #expect(try broker.messages(in: queue) == 0)
        }
      }
    }

    @Test("BRK-12: a delivery not acknowledged comes again")
    func aDeliveryNotAcknowledgedComesAgain() async throws {
      try await TestBroker.with { broker in
        let transport = try broker.transport()
        let head = try await transport.open(.head(offices: ["north"]))
        let first = try await transport.open(.branch(office: "north"))
        for number in 1...3 { try await head.publish([UInt8(number)], to: .branches, messageID: "\(number)") }
        let one = try await within(.seconds(5)) { try await first.next() }
        _ = try await within(.seconds(5)) { try await first.next() }
        try await first.acknowledge(one.tag)
        await first.close()
        let second = try await transport.open(.branch(office: "north"))
        let again = try await within(.seconds(5)) { [try await second.next(), try await second.next()] }
        #expect(again.map(\.messageID) == ["2", "3"])
        #expect(again.map(\.redelivered) == [true, true])
        await second.close()
        await head.close()
      }
    }

    @Test("a newcomer asks before its queue is there, gets the answer, and touches no office's queue")
    func aNewcomerIsAnsweredInAQueueOfItsOwn() async throws {
      try await TestBroker.with { broker in
        let transport = try broker.transport()
        let head = try await transport.open(.head(offices: ["north"]))
        try await head.publish([7], to: .office("north"), messageID: "for north")
        let newcomer = try await transport.open(.newcomer(nonce: -5))
        async let answer = within(.seconds(10)) { try await newcomer.next() }
        try await newcomer.publish([1], to: .head, messageID: "may I")
        let asked = try await within(.seconds(5)) { try await head.next() }
        #expect(asked.body == [1])
        try await head.acknowledge(asked.tag)
        try await head.declareNewcomer(-5)
        try await head.publish([2], to: .newcomer(-5), messageID: "you may")
        try await head.confirmed()
        let delivery = try await answer
        #expect(delivery.body == [2])
        try await newcomer.acknowledge(delivery.tag)
        await newcomer.close()
        let north = try await transport.open(.branch(office: "north"))
        #expect(try await within(.seconds(5)) { try await north.next() }.messageID == "for north")
        await north.close()
        await head.close()
      }
    }

    @Test("BRK-11: messages of 4 MiB pass both ways", arguments: [1, 65_528, 65_529, 4 << 20])
    func largeMessagesPass(size: Int) async throws {
      try await TestBroker.with { broker in
        let head = try await broker.transport(prefetch: 2).open(.head(offices: []))
        let bodies = (0..<4).map { seed in (0..<size).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ seed) } }
        async let publishing: Void = {
          for (number, body) in bodies.enumerated() {
            try await head.publish(body, to: .head, messageID: "\(number)")
          }
          try await head.confirmed()
        }()
        for body in bodies {
          let delivery = try await within(.seconds(20)) { try await head.next() }
          #expect(delivery.body == body)
          try await head.acknowledge(delivery.tag)
        }
        try await publishing
        await head.close()
      }
    }

    @Test("BRK-16: a branch drops a long queue when it connects, a short one it reads; head reads all of its own")
    func aLongQueueIsDropped() async throws {
      try await TestBroker.with { broker in
        let transport = try broker.transport()
        for (count, isDropped) in [(64, false), (65, true)] {
          let head = try await transport.open(.head(offices: ["north"]))
          for number in 0..<count {
            try await head.publish([1], to: .branches, messageID: "down-\(number)")
            try await head.publish([1], to: .head, messageID: "up-\(number)")
          }
          try await head.confirmed()
          let branch = try await transport.open(.branch(office: "north"))
          try await head.publish([2], to: .branches, messageID: "live")
          let first = try await within(.seconds(5)) { try await branch.next() }
          #expect(first.messageID == (isDropped ? "live" : "down-0"))
          for number in 0..<count {
            let own = try await within(.seconds(5)) { try await head.next() }
            #expect(own.messageID == "up-\(number)")
            try await head.acknowledge(own.tag)
          }
          await branch.close()
          await head.close()
          try broker.purge("hub.office.north")
        }
      }
    }

    @Test func nextEndsWhenItsTaskIsCancelled() async throws {
      try await TestBroker.with { broker in
        let head = try await broker.transport().open(.head(offices: []))
        let waiting = Task { await kind { _ = try await head.next() } }
        try await Task.sleep(for: .milliseconds(50))
        let start = ContinuousClock.now
        waiting.cancel()
        #expect(await waiting.value == .closed)
        #expect(start.duration(to: .now) < .milliseconds(500))
        // The session lives on.
        try await head.publish([1], to: .head, messageID: "after")
        #expect(try await within(.seconds(5)) { try await head.next() }.messageID == "after")
        await head.close()
      }
    }

    @Test func aTagIsSettledOnce() async throws {
      try await TestBroker.with { broker in
        let head = try await broker.transport().open(.head(offices: []))
        try await head.publish([1], to: .head, messageID: "a")
        let delivery = try await within(.seconds(5)) { try await head.next() }
        try await head.acknowledge(delivery.tag)
        #expect(await kind { try await head.acknowledge(delivery.tag) } == .notAllowed)
        #expect(await kind { try await head.reject(delivery.tag) } == .notAllowed)
        try await head.publish([1], to: .head, messageID: "b")
        #expect(try await within(.seconds(5)) { try await head.next() }.messageID == "b")
        await head.close()
      }
    }

    @Test("BRK-04: 20 000 messages through a fanout, each confirmed and acknowledged")
    func twentyThousandMessagesPass() async throws {
      try await TestBroker.with { broker in
        let count = 20_000
        let head = try await broker.transport(prefetch: 100, confirmWindow: 256).open(.head(offices: []))
        let body = [UInt8](repeating: 7, count: 1024)
        let start = ContinuousClock.now
        async let publishing: Duration = {
          for number in 1...count { try await head.publish(body, to: .head, messageID: "\(number)") }
          try await head.confirmed()
          return start.duration(to: .now)
        }()
        for number in 1...count {
          let delivery = try await head.next()
          if delivery.messageID != "\(number)" {
            Issue.record("\(number) came as \(delivery.messageID ?? "?")")
          }
          try await head.acknowledge(delivery.tag)
        }
        let took = start.duration(to: .now)
        let rate = Int(Double(count) / (took / .seconds(1)))
        print("20 000 messages of 1 KiB: confirmed \(try await publishing), acknowledged \(took), \(rate)/s")
        #expect(took < .seconds(60))
        await head.close()
        #expect(try broker.messages(in: "hub.head") == 0)
      }
    }
  }
}
