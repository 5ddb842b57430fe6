import SyncCore
import Testing

@Suite struct DailyWindowTests {
  @Test func aWindowIsOpenFromItsFirstMinuteUpToItsLast() throws {
    let window = try #require(DailyWindow("01:30-03:00"))
    for (minute, isOpen) in [(0, false), (89, false), (90, true), (179, true), (180, false), (1439, false)] {
      #expect(window.contains(minute: minute) == isOpen, "minute \(minute)")
    }
  }

  @Test func aWindowMayCrossMidnight() throws {
    let window = try #require(DailyWindow("23:00-01:00"))
    for (minute, isOpen) in [(1379, false), (1380, true), (1439, true), (0, true), (59, true), (60, false)] {
      #expect(window.contains(minute: minute) == isOpen, "minute \(minute)")
    }
  }

  @Test func theNextWindowIsTheOneThatOpensFirstFromNow() throws {
    let windows = try ["12:00-12:30", "23:00-01:00"].map { try #require(DailyWindow($0)) }
    #expect(DailyWindow.opensNext(windows, minute: 60) == "12:00")
    #expect(DailyWindow.opensNext(windows, minute: 720) == nil)
    #expect(DailyWindow.opensNext(windows, minute: 750) == "23:00")
    #expect(DailyWindow.opensNext(windows, minute: 30) == nil)
    #expect(DailyWindow.opensNext([], minute: 30) == nil)
  }

  @Test func windowsThatTouchCloseTogether() throws {
    let windows = try ["22:00-23:30", "23:30-01:00", "12:00-12:30"].map { try #require(DailyWindow($0)) }
    #expect(DailyWindow.closesNext(windows, minute: 1330) == "01:00")
    #expect(DailyWindow.closesNext(windows, minute: 59) == "01:00")
    #expect(DailyWindow.closesNext(windows, minute: 725) == "12:30")
    #expect(DailyWindow.closesNext(windows, minute: 60) == nil)
    let always = try ["00:00-12:00", "12:00-00:00"].map { try #require(DailyWindow($0)) }
    #expect(DailyWindow.closesNext(always, minute: 60) == nil)
  }

  @Test(arguments: [
    "", "1:00-2:00", "01:00", "01:00-", "24:00-01:00", "01:60-02:00", "01:00-01:00", "+1:00-02:00", "01:00-02:00-03:00",
    "a1:00-02:00",
  ])
  func whatIsNoWindowIsNone(_ text: String) { #expect(DailyWindow(text) == nil) }
}
