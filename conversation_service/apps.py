from django.apps import AppConfig


class ConversationServiceConfig(AppConfig):
    name = "conversation_service"
    verbose_name = "Conversation Service"
