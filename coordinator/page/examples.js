/* Jobs to begin from. */
export const EXAMPLES = [
  { name: "hello", about: "one step, one line", text: `name: hello
tasks:
  - name: say hello
    image: alpine:3.18.3
    run: echo hello world
` },
  { name: "steps and a result", about: "a step uses what the step before found", text: `name: steps and a result
inputs:
  city: Bern
tasks:
  - name: measure
    var: length
    image: alpine:3.18.3
    run: |
      echo "measuring $CITY"
      printf %s "$CITY" | wc -c > "$TORK_OUTPUT"
    env:
      CITY: "{{ inputs.city }}"
  - name: report
    image: alpine:3.18.3
    run: echo "$CITY has $LETTERS letters"
    env:
      CITY: "{{ inputs.city }}"
      LETTERS: "{{ trim(tasks.length) }}"
output: "{{ trim(tasks.length) }}"
` },
  { name: "many at once", about: "twenty small tasks, four at a time", text: `name: many at once
tasks:
  - name: all
    each:
      list: "{{ 1..20 }}"
      concurrency: 4
      task:
        name: "number {{ item.value }}"
        image: alpine:3.18.3
        run: echo "this is $NUMBER" && sleep 1
        env:
          NUMBER: "{{ item.value }}"
` },
  { name: "tries again", about: "a step that fails is tried again", text: `name: tries again
tasks:
  - name: fetch
    image: alpine:3.18.3
    retry:
      limit: 2
      initialDelay: 2s
    run: |
      echo "connecting"
      exit 2
` },
  { name: "every night", about: "a schedule", text: `name: every night
schedule:
  cron: "0 3 * * *"
tasks:
  - name: clean up
    image: alpine:3.18.3
    run: echo cleaning
` },
];
