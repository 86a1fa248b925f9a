class ExampleEvent(analytics.Event):
    type = "of.a.test"
